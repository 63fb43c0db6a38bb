"""Stages of convolution blocks with pooling between them, the network of the question.

Imports nothing of this package, so that an exported model is this very source.
"""

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
