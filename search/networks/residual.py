"""ResNets (He 2015, 1512.03385) whose every stage has filters of its own; torchvision's are fixed to 64-128-256-512.

Imports nothing of this package, so that an exported model is this very source.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck


class ResidualNetwork(nn.Sequential):
    """`stem`, `stage1`, `stage2`, ..., then global average pooling and a linear head with bias.

    Maps images `(batch, in_channels, height, width)` to logits `(batch, classes)`. Blocks, initial weights and where
    a shortcut is projected (a stride, or other channels in than out) are torchvision's.

    Args:
        filters: Output channels of every block of stage i, for each i; of bottlenecks in multiples of 4, a quarter
            being their inner width. Shape `(n_stages,)`.
        in_channels: Channels of the images.
        classes: Width of the head.
        blocks: Blocks of each stage, shape `(n_stages,)`.
        strides: By how much each stage divides height and width, likewise.
        stem_filters: Filters of the stem.
        large_stem: A stem that leaves a quarter of height and width; else one 3x3 convolution that leaves all.
        bottleneck: Bottlenecks (1x1, 3x3, 1x1) in place of basic blocks (3x3, 3x3).
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
        bottleneck: bool,
    ) -> None:
        layers = OrderedDict(stem=_stem(in_channels, stem_filters, large_stem))
        block = Bottleneck if bottleneck else BasicBlock
        channels = stem_filters
        for number, (width, depth, stride) in enumerate(zip(filters, blocks, strides, strict=True), start=1):
            layers[f"stage{number}"] = _stage(block, channels, width, depth, stride)
            channels = width
        super().__init__(
            OrderedDict(
                **layers, average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(channels, classes)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(in_channels: int, filters: int, large: bool) -> nn.Sequential:
    kernel, stride = (7, 2) if large else (3, 1)
    stem = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, filters, kernel, stride, padding=kernel // 2, bias=False),
            norm=nn.BatchNorm2d(filters),
            relu=nn.ReLU(inplace=True),
        )
    )
    if large:
        stem.add_module("pool", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    return stem


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, filters: int, blocks: int, stride: int
) -> nn.Sequential:
    planes = filters // block.expansion
    shortcut = None
    if stride != 1 or in_channels != filters:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, filters, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(filters)
        )
    stage = nn.Sequential(OrderedDict(block1=block(in_channels, planes, stride, shortcut)))
    for number in range(2, blocks + 1):
        stage.add_module(f"block{number}", block(filters, planes))
    return stage
