"""Rewrites of networks that compute the same up to rounding, for where torch's kernels for the CPU are weak.

Parameters and buffers keep their names, so state dicts are those of the network as it was.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor, nn


def subsample_first(network: nn.Module) -> None:
    """Make every strided 1x1 convolution take the pixels it needs before it, then step by 1; the same up to rounding.

    oneDNN's backward pass of such a convolution of few channels writes beyond its memory in channels_last (torch 2.15,
    8 to 16 channels at 64 pixels: a segmentation fault or a damaged heap, whichever of images and weights are so).
    Contiguous memory is sound too, but slower: ResNet 8-16-32 of 4 replicas took 42 ms a step at 14 pixels and 192 ms
    at 32 on one thread, in channels_last 29 and 134 ms, and with this at most 20% more than that.
    """
    for layer in network.modules():
        if not isinstance(layer, nn.Conv2d) or layer.stride == (1, 1):
            continue
        if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
            layer.register_forward_pre_hook(_take_every(*layer.stride))
            layer.stride = (1, 1)


def _take_every(rows: int, columns: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor]]:
    return lambda _, inputs: (inputs[0][:, :, ::rows, ::columns],)


def pool_first(network: nn.Module) -> None:
    """Let every max pooling that follows a ReLU come before it, so that the ReLU sees a quarter as many values.

    A ReLU never changes which of several values is the largest, so results and gradients are the same. It and its
    backward pass took 16 % of a training of plain 8-16-32 on 28x28 images, bound by memory.
    """
    for first, second in pairwise(_leaves(network)):
        if type(network.get_submodule(first)) is nn.ReLU and type(network.get_submodule(second)) is nn.MaxPool2d:
            relu, pooling = network.get_submodule(first), network.get_submodule(second)
            network.set_submodule(first, nn.Identity())
            network.set_submodule(second, nn.Sequential(pooling, relu))


def _leaves(module: nn.Module, path: str = "") -> list[str]:
    """Paths of the layers in the order of a forward pass; a module that is no sequence counts as one."""
    if type(module).forward is not nn.Sequential.forward:
        return [path]
    return [leaf for name, child in module.named_children() for leaf in _leaves(child, f"{path}.{name}".lstrip("."))]
