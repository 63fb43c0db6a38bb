"""Networks of MobileNet's inverted residuals (Sandler 2018, 1801.04381) whose every stage has filters of its own.

Imports nothing of this package, so that an exported model is this very source.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation


class InvertedNetwork(nn.Sequential):
    """`stem`, `stage1`, `stage2`, ..., `last`, then global average pooling and a linear head with bias.

    Maps images `(batch, in_channels, height, width)` to logits `(batch, classes)`. Layers and initial weights are
    those of torchvision's MobileNetV2, without its dropout before the head.

    Args:
        filters: Output channels of every block of stage i, for each i; shape `(n_stages,)`.
        in_channels: Channels of the images.
        classes: Width of the head.
        blocks: Blocks of each stage, shape `(n_stages,)`.
        strides: By how much each stage divides height and width, likewise.
        stem_filters: Filters of the stem.
        large_stem: A stem that leaves half of height and width; else all.
        head_filters: Filters of `last`, a 1x1 convolution; None for none.
        expansion: How much wider each stage's blocks are inside than what they get, shape `(n_stages,)`.
        kernel_size: Of the depthwise convolutions.
        squeeze_excite: Squeeze-and-excitation to a quarter of the inner width, as in MobileNetV3 (Howard 2019,
            1905.02244).
    """

    def __init__(
        self,
        filters: tuple[int, ...],
        in_channels: int,
        classes: int,
        blocks: tuple[int, ...],
        strides: tuple[int, ...],
        stem_filters: int,
        large_stem: bool,
        head_filters: int | None,
        expansion: tuple[float, ...],
        kernel_size: int,
        squeeze_excite: bool,
    ) -> None:
        stem = Conv2dNormActivation(
            in_channels, stem_filters, stride=2 if large_stem else 1, activation_layer=nn.ReLU6
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        channels = stem_filters
        settings = zip(filters, blocks, strides, expansion, strict=True)
        for number, (width, depth, stride, factor) in enumerate(settings, start=1):
            stage = nn.Sequential()
            for block in range(1, depth + 1):
                inverted = InvertedResidual(channels, width, stride, factor, kernel_size, squeeze_excite)
                stage.add_module(f"block{block}", inverted)
                channels, stride = width, 1
            layers[f"stage{number}"] = stage
        if head_filters is not None:
            layers["last"] = Conv2dNormActivation(channels, head_filters, kernel_size=1, activation_layer=nn.ReLU6)
            channels = head_filters
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = nn.Linear(channels, classes)
        super().__init__(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)


class InvertedResidual(nn.Module):
    """1x1 convolution to the inner width, depthwise convolution, 1x1 convolution back without activation.

    What comes in is added where it has the shape of what comes out. torchvision's own has neither other kernels nor
    squeeze-and-excitation.
    """

    def __init__(
        self, channels: int, filters: int, stride: int, expansion: float, kernel_size: int, squeeze_excite: bool
    ) -> None:
        super().__init__()
        inner = round(channels * expansion)
        self.adds = stride == 1 and channels == filters
        self.layers = nn.Sequential()
        if expansion != 1:
            self.layers.add_module(
                "expand", Conv2dNormActivation(channels, inner, kernel_size=1, activation_layer=nn.ReLU6)
            )
        depthwise = Conv2dNormActivation(
            inner, inner, kernel_size=kernel_size, stride=stride, groups=inner, activation_layer=nn.ReLU6
        )
        self.layers.add_module("depthwise", depthwise)
        if squeeze_excite:
            squeeze = SqueezeExcitation(inner, max(1, inner // 4), scale_activation=nn.Hardsigmoid)
            self.layers.add_module("squeeze_excite", squeeze)
        self.layers.add_module("project", Conv2dNormActivation(inner, filters, kernel_size=1, activation_layer=None))

    def forward(self, features: Tensor) -> Tensor:
        """Features `(batch, channels, height, width)` to `(batch, filters, height / stride, width / stride)`."""
        out: Tensor = self.layers(features)
        return features + out if self.adds else out
