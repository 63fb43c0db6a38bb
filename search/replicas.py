"""Several networks of one architecture in one pass.

Training a tiny network leaves a processor idle between kernels; K replicas that differ in seed only share every kernel
instead (HFTA, Wang 2021, 2102.02344). Owns the fusion of any network made of the layers listed here. Knows nothing of
seeds or training.

Dimension legend: b batch, k replicas, c channels, h height, w width, n classes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from search.channelwise import CHANNELWISE, keeps_channels_apart

Drawing = Callable[[int, torch.device, bool], AbstractContextManager[None]]


class Replicas(nn.Module):
    """K networks as one module: images `(b, k, c, h, w)` in, logits `(b, k, n)` out.

    Replicas do not interact: a loss summed over k gives each the gradients it has alone.
    """

    count: int
    layout: torch.memory_format = torch.channels_last
    generators: Sequence[np.random.Generator] = ()
    """What training passes draw from, for whoever keeps a training's state."""

    def lay_out(self, layout: torch.memory_format) -> Self:
        """Keep weights and images in one memory format from here on."""
        self.layout = layout
        return self.to(memory_format=layout)

    def state_dict_of(self, replica: int) -> dict[str, Tensor]:
        """What the network of one replica would return as its state dict: on the CPU, contiguous, a copy."""
        raise NotImplementedError


class FusedReplicas(Replicas):
    """Every layer's K copies fused into one wider layer; see `fuse`."""

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network = network
        self.count = count

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(b, k, n)` of images `(b, k, c, h, w)`."""
        # channels_last: oneDNN's grouped convolutions ran 1.5 to 3x faster in it on the 8x8 digits
        channels = images.flatten(1, 2).contiguous(memory_format=self.layout)
        logits: Tensor = self.network(channels)
        return logits.reshape(len(images), self.count, -1)

    def state_dict_of(self, replica: int) -> dict[str, Tensor]:
        """See `Replicas`."""
        return {
            name: _own(tensor.chunk(self.count)[replica] if tensor.dim() else tensor)
            for name, tensor in self.network.state_dict().items()
        }


class SeparateReplicas(Replicas):
    """K networks run one after the other, for architectures that cannot be fused.

    Args:
        networks: They.
        drawing: What settles the draws (dropout) of one replica's pass on a device, in training or not; None where
            networks draw nothing.
    """

    def __init__(self, networks: Sequence[nn.Module], drawing: Drawing | None = None) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.count = len(networks)
        self._drawing = drawing

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(b, k, n)` of images `(b, k, c, h, w)`."""
        return torch.stack([self._pass(replica, own) for replica, own in enumerate(images.unbind(1))], dim=1)

    def _pass(self, replica: int, images: Tensor) -> Tensor:
        settled = self._drawing(replica, images.device, self.training) if self._drawing else nullcontext()
        with settled:
            logits: Tensor = self.networks[replica](images.contiguous(memory_format=self.layout))
        return logits

    def state_dict_of(self, replica: int) -> dict[str, Tensor]:
        """See `Replicas`."""
        return {name: _own(tensor) for name, tensor in self.networks[replica].state_dict().items()}


class _FusedLinear(nn.Module):
    """K linear layers on `(b, k * in)`, weights stacked along their first dimension as in a grouped convolution."""

    def __init__(self, count: int, layer: nn.Linear) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.empty(count * layer.out_features, layer.in_features))
        self.bias = nn.Parameter(torch.empty(count * layer.out_features)) if layer.bias is not None else None

    def forward(self, features: Tensor) -> Tensor:
        own = features.reshape(len(features), self.count, -1).transpose(0, 1)  # k b in
        weight = self.weight.view(self.count, -1, self.weight.shape[1])  # k out in
        out = torch.bmm(own, weight.mT).transpose(0, 1).flatten(1)
        return out if self.bias is None else out + self.bias


def fuse(networks: Sequence[nn.Module]) -> FusedReplicas | None:
    """The networks as one module whose every layer is K times as wide and in K groups.

    Composite modules may add and multiply activations of equal channels, pool, flatten, or apply layers in turn; what
    may join or reorder channels (`torch.cat`), draws (dropout) or shares weights between layers is not fused.

    Args:
        networks: K separately initialised copies of one architecture, on one device.

    Returns:
        None when a layer or the forward pass is of no kind that can be fused; `SeparateReplicas` serves then.

    Raises:
        ValueError: The networks' weights differ in name or shape.
    """
    states = [network.state_dict() for network in networks]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        msg = f"{len(networks)} networks of different architecture cannot be replicas; build all from one schedule"
        raise ValueError(msg)
    fused = FusedReplicas(deepcopy(networks[0]), len(networks))
    if len(networks) == 1:
        return fused
    if _shares_weights(networks[0]) or not keeps_channels_apart(networks[0]):
        return None
    for path, layer in list(fused.named_modules()):
        if next(layer.children(), None) is not None:
            if any(True for _ in layer.parameters(recurse=False)):
                return None
            continue
        wider = _widen(layer, len(networks))
        if wider is None:
            return None
        fused.set_submodule(path, wider.train(layer.training))
    stacked = {
        name: torch.cat([state[name] for state in states]) if first.dim() else first.clone()
        for name, first in states[0].items()
    }
    fused.network.load_state_dict(stacked, assign=True)
    return fused


def _shares_weights(network: nn.Module) -> bool:
    every = [weight for _, weight in network.named_parameters(remove_duplicate=False)]
    return len({id(weight) for weight in every}) < len(every)


def _widen(layer: nn.Module, count: int) -> nn.Module | None:
    """One layer in place of `count` such layers, its weights not filled in; None for a type unknown here."""
    if type(layer) in CHANNELWISE:
        return layer
    widen = _WIDEN.get(type(layer))
    # on the meta device: real weights would be drawn from, and move, the global generator
    with torch.device("meta"):
        return widen(layer, count) if widen else None


def _conv(layer: nn.Module, count: int) -> nn.Module:
    assert isinstance(layer, nn.Conv2d)
    return nn.Conv2d(
        layer.in_channels * count,
        layer.out_channels * count,
        layer.kernel_size,  # type: ignore[arg-type] # torch types a pair as a tuple of any length
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        layer.groups * count,
        layer.bias is not None,
        layer.padding_mode,
    )


def _norm(layer: nn.Module, count: int) -> nn.Module:
    assert isinstance(layer, nn.BatchNorm2d)
    return nn.BatchNorm2d(
        layer.num_features * count, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )


def _linear(layer: nn.Module, count: int) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    return _FusedLinear(count, layer)


_WIDEN: dict[type[nn.Module], Callable[[nn.Module, int], nn.Module]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.Linear: _linear,
}


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
