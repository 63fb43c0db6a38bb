"""Whether several networks of one architecture may run side by side, as channels of one wider network.

Owns which layers and operations leave channels apart, and the proof that a forward pass is made of those alone: it is
traced, not run, so nothing is computed or drawn and no tolerance decides. What is not recognised counts as mixing.
"""

import operator
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.nn import functional

_Kind = Literal["map", "vector"]

_ELEMENTWISE = (
    nn.ELU,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
)
_POOLING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
CHANNELWISE: tuple[type[nn.Module], ...] = (*_ELEMENTWISE, *_POOLING, nn.Flatten)
"""They treat every channel alone, so they do to K times the channels what they do to one network's."""

# Functions by themselves, methods by name.
_UNARY = {
    *(functional.relu, functional.relu6, functional.silu, functional.gelu, functional.hardswish),
    *(functional.hardsigmoid, functional.leaky_relu, torch.relu, torch.sigmoid, torch.tanh),
    *("relu", "relu_", "sigmoid", "tanh", "contiguous"),
}
_BINARY = {
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.add,
    torch.mul,
    "add",
    "add_",
    "mul",
    "mul_",
}
_POOL = {functional.adaptive_avg_pool2d, functional.avg_pool2d, functional.max_pool2d}
_MEAN = {torch.mean, "mean"}
_FLATTEN = {torch.flatten, "flatten"}
_RESHAPE = {torch.reshape, "view", "reshape"}


@dataclass(frozen=True)
class _Channels:
    """A tensor `(batch, number, height, width)`, a map, or `(batch, number)`, a vector; None for a number unknown."""

    kind: _Kind
    number: int | None


class _MixingError(Exception):
    """An operation is not known to leave channels apart."""


def keeps_channels_apart(network: nn.Module) -> bool:
    """Whether its forward pass, in training and in evaluation, is made of what leaves channels apart.

    K such networks may then run as one whose convolutions have K times the groups: maps keep each network's channels
    together, and so do the vectors they are flattened to.

    Args:
        network: Takes images, returns logits; left as it is.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
        return False  # tracing does not run them
    copy = deepcopy(network)
    with torch.random.fork_rng(devices=[]):  # a forward pass of the user's own may draw while it is traced
        try:
            for training in (True, False):
                _follow(copy.train(training))
        except Exception:  # whatever tracing code of the user's own raises: what cannot be traced is not known
            return False
    return True


def _follow(network: nn.Module) -> None:
    """Carry channels through the traced forward pass.

    Raises:
        _MixingError: Some operation may mix them.
    """
    known: dict[fx.Node, Any] = {}
    for node in fx.Tracer().trace(network).nodes:
        given = [known[each] if isinstance(each, fx.Node) else each for each in node.args]
        match node.op:
            case "placeholder" if not known:
                known[node] = _Channels("map", None)
            case "call_module" if len(given) == 1 and not node.kwargs:
                known[node] = _through_layer(network.get_submodule(str(node.target)), given[0])
            case "call_function" | "call_method":
                known[node] = _through_operation(node.target, given, node.kwargs)
            case "output" if isinstance(given[0], _Channels) and given[0].kind == "vector":
                pass
            case _:
                raise _MixingError


def _through_layer(layer: nn.Module, given: object) -> _Channels:
    kind = given.kind if isinstance(given, _Channels) else None
    match layer:
        case nn.Conv2d() if kind == "map":
            return _Channels("map", layer.out_channels)
        case nn.Linear() if kind == "vector":
            return _Channels("vector", layer.out_features)
        case nn.Flatten(start_dim=1, end_dim=-1) if kind == "map":
            return _Channels("vector", None)
    same = type(layer) in _ELEMENTWISE or (kind == "map" and type(layer) in (nn.BatchNorm2d, *_POOLING))
    if same and isinstance(given, _Channels):
        return given
    raise _MixingError


def _through_operation(target: object, given: list[Any], named: Mapping[str, Any]) -> object:
    """What a function, or a method by its name, makes of its operands."""
    first = given[0] if given else None
    if target is getattr and given[1:] == ["shape"] and isinstance(first, _Channels):
        return "shape"
    if (target == "size" and given[1:] == [0]) or (target is operator.getitem and given == ["shape", 0]):
        return "batch"
    if target in _BINARY and isinstance(first, (int, float)) and len(given) == 2:
        given = given[::-1]
        first = given[0]
    if not isinstance(first, _Channels):
        raise _MixingError
    rest = [*given[1:], *named.values()]
    if target in _UNARY or (target in _POOL and first.kind == "map"):
        return first
    if target in _BINARY and len(given) == 2 and not named and _fits(first, given[1]):
        return first
    if first.kind == "map" and target in _FLATTEN and rest in ([1], [1, -1]):
        return _Channels("vector", None)
    if first.kind == "map" and target in _RESHAPE and rest in (["batch", -1], [("batch", -1)]):
        return _Channels("vector", None)
    if first.kind == "map" and target in _MEAN and not given[2:]:
        return _mean(first, {**named, **dict(zip(["dim"], given[1:], strict=False))})
    raise _MixingError


def _fits(first: _Channels, second: object) -> bool:
    """Whether two operands have as many channels, so that none is spread over the other's."""
    if isinstance(second, (int, float)):
        return True
    return second == first and first.number is not None


def _mean(first: _Channels, named: Mapping[str, Any]) -> _Channels:
    """A mean over height and width, and nothing else."""
    if set(named) <= {"dim", "keepdim"} and set(named.get("dim", ())) in ({2, 3}, {-1, -2}):
        return first if named.get("keepdim", False) else _Channels("vector", first.number)
    raise _MixingError
