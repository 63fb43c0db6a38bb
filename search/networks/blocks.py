"""torchvision's blocks in plain PyTorch, for exported models, which are to need nothing else.

Studies build with torchvision's own. These have submodules of the same names and compute the same; what the families
here never ask for is left out. Each class is repeated word for word in the models that use it.
"""

import ast
import inspect
import sys

import torch
from torch import nn


class Conv2dNormActivation(nn.Sequential):
    """Convolution without bias, batch norm, and an activation unless it is None."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation_layer: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        padding = (kernel_size - 1) // 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            *([] if activation_layer is None else [activation_layer(inplace=True)]),
        )


class SqueezeExcitation(nn.Module):
    """Every channel times a factor in [0, 1] from the means of all channels (Hu 2017, 1709.01507)."""

    def __init__(
        self, input_channels: int, squeeze_channels: int, scale_activation: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = scale_activation()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(batch, channels, height, width)` to the same shape."""
        scale: torch.Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(features)))))
        return scale * features


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(batch, inplanes, height, width)` to `(batch, planes, height / stride, width / stride)`."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        out += features if self.downsample is None else self.downsample(features)
        activated: torch.Tensor = self.relu(out)
        return activated


class Bottleneck(nn.Module):
    """ResNet's block of 1x1, 3x3 and 1x1 convolutions, the stride in the 3x3."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(batch, inplanes, height, width)` to `(batch, 4 * planes, height / stride, width / stride)`."""
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += features if self.downsample is None else self.downsample(features)
        activated: torch.Tensor = self.relu(out)
        return activated


class ResBottleneckBlock(nn.Module):
    """RegNet's block of 1x1, grouped 3x3 and 1x1 convolutions, all of one width."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        norm_layer: type[nn.Module],
        activation_layer: type[nn.Module],
        group_width: int,
        se_ratio: float | None,
    ) -> None:
        super().__init__()
        self.proj = None
        if width_in != width_out or stride != 1:
            self.proj = Conv2dNormActivation(width_in, width_out, 1, stride, activation_layer=None)
        self.f = nn.Sequential()
        self.f.add_module("a", Conv2dNormActivation(width_in, width_out, 1))
        self.f.add_module("b", Conv2dNormActivation(width_out, width_out, 3, stride, width_out // group_width))
        if se_ratio:
            self.f.add_module("se", SqueezeExcitation(width_out, round(se_ratio * width_in)))
        self.f.add_module("c", Conv2dNormActivation(width_out, width_out, 1, activation_layer=None))
        self.activation = activation_layer(inplace=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(batch, width_in, height, width)` to `(batch, width_out, height / stride, width / stride)`."""
        out = (features if self.proj is None else self.proj(features)) + self.f(features)
        activated: torch.Tensor = self.activation(out)
        return activated


def without_torchvision(source: str) -> str:
    """A family's source with classes of this file in place of what it imports from torchvision; needs `torch`.

    Args:
        source: All its imports come first, those from torchvision on a line each.
    """
    lines = source.splitlines()
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    replaced = [
        node for node in imports if isinstance(node, ast.ImportFrom) and str(node.module).startswith("torchvision.")
    ]
    if not replaced:
        return source
    classes = {
        name: inspect.getsource(each)
        for name, each in vars(sys.modules[__name__]).items()
        if inspect.isclass(each) and each.__module__ == __name__
    }
    wanted = {name.name for node in replaced for name in node.names}
    wanted |= {node.id for name in wanted for node in ast.walk(ast.parse(classes[name])) if isinstance(node, ast.Name)}
    dropped = {node.lineno for node in replaced}
    last = max(node.lineno for node in imports)
    head = [line for number, line in enumerate(lines[:last], start=1) if number not in dropped]
    blocks = "\n\n".join(text for name, text in classes.items() if name in wanted)
    return "\n".join(head) + f"\n\n\n{blocks}\n\n" + "\n".join(lines[last:]).lstrip("\n") + "\n"
