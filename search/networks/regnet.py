"""RegNets (Radosavovic 2020, 2003.13678) whose every stage has filters of its own, from no quantised line.

Imports nothing of this package, so that an exported model is this very source.
"""

import math
from collections import OrderedDict

from torch import nn
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.ops.misc import Conv2dNormActivation


class RegNetwork(nn.Sequential):
    """`stem`, `stage1`, `stage2`, ..., then global average pooling and a linear head with bias.

    Maps images `(batch, in_channels, height, width)` to logits `(batch, classes)`. Blocks, initial weights and where
    a shortcut is projected (a stride, or other channels in than out) are torchvision's, bottleneck multiplier 1.

    Args:
        filters: Filters of every block of stage i, for each i; multiples of `group_width`. Shape `(n_stages,)`.
        in_channels: Channels of the images.
        classes: Width of the head.
        blocks: Blocks of each stage, shape `(n_stages,)`.
        strides: By how much each stage divides height and width, likewise.
        stem_filters: Filters of the stem.
        large_stem: A stem that leaves half of height and width; else all.
        group_width: Filters of one group of the 3x3 convolutions.
        squeeze_excite: Squeeze-and-excitation to a quarter of the channels a block gets, which makes it a RegNetY.
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
        group_width: int,
        squeeze_excite: bool,
    ) -> None:
        layers = OrderedDict(stem=Conv2dNormActivation(in_channels, stem_filters, stride=2 if large_stem else 1))
        channels = stem_filters
        for number, (width, depth, stride) in enumerate(zip(filters, blocks, strides, strict=True), start=1):
            stage = nn.Sequential()
            for block in range(1, depth + 1):
                stage.add_module(f"block{block}", _block(channels, width, stride, group_width, squeeze_excite))
                channels, stride = width, 1
            layers[f"stage{number}"] = stage
        super().__init__(
            OrderedDict(
                **layers, average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(channels, classes)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)


def _block(channels: int, filters: int, stride: int, group_width: int, squeeze_excite: bool) -> nn.Module:
    block: nn.Module = ResBottleneckBlock(
        channels,
        filters,
        stride,
        norm_layer=nn.BatchNorm2d,
        activation_layer=nn.ReLU,
        group_width=group_width,
        se_ratio=0.25 if squeeze_excite else None,
    )
    return block
