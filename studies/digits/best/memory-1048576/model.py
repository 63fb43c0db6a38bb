"""The network 14-22-17 for images of 1x8x8 (channels, height, width) in 10 classes.

    from model import load
    network = load()

Then `network(images)` gives the logits, shape (batch, 10), in the order of the labels 0 to 9. It takes
images of shape (batch, 1, 8, 8) as the data set has them, here uint8 with values from 0 to 16: the normalisation is
inside. Other values, such as scaled ones, are not noticed and give wrong answers. Needs PyTorch alone.
"""

import json
from pathlib import Path

import torch
from collections import OrderedDict

from torch import nn


class PlainNetwork(nn.Sequential):
    """`stage1`, `pool1`, `stage2`, ..., then global average pooling and a linear head with bias.

    Maps images `(batch, in_channels, height, width)` to logits `(batch, classes)`. Two blocks per stage make it a VGG
    (Simonyan 2014, 1409.1556).

    Args:
        filters: Filters of every block of stage i, for each i; shape `(n_stages,)`.
        in_channels: Channels of the images.
        classes: Width of the head.
        blocks: Blocks of each stage, shape `(n_stages,)`.
        stem_filters: Filters of ResNet's stem, which leaves a quarter of height and width; None for no stem.
    """

    def __init__(
        self,
        filters: tuple[int, ...],
        in_channels: int,
        classes: int,
        blocks: tuple[int, ...],
        stem_filters: int | None = None,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        if stem_filters is not None:
            layers["stem"] = _stem(channels, stem_filters)
            channels = stem_filters
        for number, (width, depth) in enumerate(zip(filters, blocks, strict=True), start=1):
            if number > 1:
                layers[f"pool{number - 1}"] = nn.MaxPool2d(2)
            layers[f"stage{number}"] = _stage(channels, width, depth)
            channels = width
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = nn.Linear(channels, classes)
        super().__init__(layers)


def _stem(in_channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, filters, kernel_size=7, stride=2, padding=3, bias=False),
            norm=nn.BatchNorm2d(filters),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
    )


def _stage(in_channels: int, filters: int, blocks: int) -> nn.Sequential:
    channels = [in_channels] + [filters] * blocks
    return nn.Sequential(OrderedDict((f"block{i + 1}", _block(channels[i], filters)) for i in range(blocks)))


def _block(in_channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, filters, kernel_size=3, padding=1, bias=False),  # batch norm shifts anyway
            norm=nn.BatchNorm2d(filters),
            relu=nn.ReLU(inplace=True),
        )
    )


class RawImageNetwork(torch.nn.Module):
    """Images as the data set has them in, logits out.

    Args:
        network: Takes normalised images.
        mean: Of each channel over the images the weights were trained on, shape `(channels,)`.
        deviation: Likewise.
        image_shape: Channels, height and width of an image.
    """

    image_mean: torch.Tensor
    image_deviation: torch.Tensor

    def __init__(
        self, network: torch.nn.Module, mean: list[float], deviation: list[float], image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.network, self.image_shape = network, image_shape
        # not persistent: they belong to the source, so the weights file holds the network's own state dict
        self.register_buffer("image_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("image_deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, classes)` of images `(batch, channels, height, width)` of any number type.

        Raises:
            ValueError: Images of another shape.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            msg = f"images {tuple(images.shape)}; give (batch, channels, height, width) of {self.image_shape} each"
            raise ValueError(msg)
        logits: torch.Tensor = self.network((images.float() - self.image_mean) / self.image_deviation)
        return logits


def build() -> RawImageNetwork:
    """The network with fresh weights."""
    network = PlainNetwork(
        filters=(14, 22, 17),
        in_channels=1,
        classes=10,
        blocks=(1, 1, 1),
        stem_filters=None,
    )
    # mean and deviation of each channel over the images the weights were trained on
    return RawImageNetwork(network, [4.901296615600586], [6.020838260650635], (1, 8, 8))


def load(weights: str = "") -> RawImageNetwork:
    """The trained network in evaluation mode; its weights lie beside this file unless another is named."""
    model = build()
    path = Path(weights) if weights else Path(__file__).with_name("weights.safetensors")
    model.network.load_state_dict(read_safetensors(path))
    return model.eval()


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file: its header's length in 8 bytes, the header as JSON, then their numbers."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        numbers = bytearray(content[start + first : start + last])
        tensors[name] = torch.frombuffer(numbers, dtype=TYPES[about["dtype"]]).reshape(about["shape"])
    return tensors


TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}
