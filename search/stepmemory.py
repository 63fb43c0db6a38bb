"""How many bytes a training step holds, followed on the meta device without allocating any.

Owns the accounting of one step in float32 with AdamW. Knows nothing of families or schedules.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

ALLOWANCE = 16 * 2**20
"""Bytes by which the backward pass may exceed what the forward pass leaves without counting as the peak."""


def step_memory(network: nn.Module, images: Tensor) -> NDArray[np.int64]:
    """Bytes held at every moment that may be the peak of a training step; their largest is its predicted memory.

    First comes what is held when the forward pass ends: weights, their gradients and two optimiser moments each,
    buffers, the batch, and every tensor that autograd keeps for the backward pass (each storage once). Then, after
    every operation, what is alive less `ALLOWANCE`: early in a network whose first stage is by far the largest, the
    gradients of activations make the backward pass the peak. So the prediction is at most that much below the bytes of
    all live tensors, and never above. Left out are the workspaces of kernels and what an allocator rounds up.

    Args:
        network: On the meta device; in training mode afterwards.
        images: A batch for it, likewise.

    Returns:
        The same moments for networks of one family whose filters differ alone; shape `(n_moments,)`.
    """
    weights = sum(parameter.nbytes for parameter in network.parameters())
    buffers = sum(buffer.nbytes for buffer in network.buffers())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # the graph holds it, so no other storage gets its address
        return tensor

    labels = torch.empty(len(images), dtype=torch.long, device=images.device)
    own = [*network.parameters(), *network.buffers()]
    with _LiveBytes(images, labels, uncounted=own) as live:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = functional.cross_entropy(network.train()(images), labels)
        forward = len(live.moments)
        keep(images)
        for tensor in own:
            kept.pop(tensor.untyped_storage()._cdata, None)
        loss.backward()  # type: ignore[no-untyped-call] # torch types no backward
    moments = np.array(live.moments, np.int64) + 3 * weights + buffers - ALLOWANCE
    moments[:forward] += weights  # the gradients of the step before, dropped only then
    return np.concatenate([[4 * weights + buffers + sum(kept.values())], moments])


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its modes untyped
    """Follows every storage made by an operation until it is freed.

    Args:
        held: Tensors alive from the start.
        uncounted: Tensors not counted, nor what only views them.

    Attributes:
        moments: Bytes alive after each operation.
    """

    def __init__(self, *held: Tensor, uncounted: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments: list[int] = []
        self._live = {tensor.untyped_storage()._cdata: 0 for tensor in uncounted}
        self._sum = 0
        for tensor in held:
            self._follow(tensor)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """See torch: carries the operation out."""
        result = func(*args, **(kwargs or {}))
        for made in tree_iter(result):
            if isinstance(made, Tensor):
                self._follow(made)
        self.moments.append(self._sum)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._live:
            self._live[address] = storage.nbytes()
            self._sum += storage.nbytes()
            weakref.finalize(storage, self._drop, address)

    def _drop(self, address: int) -> None:
        self._sum -= self._live.pop(address)
