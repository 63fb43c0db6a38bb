"""Forward and backward pass of a training step as one CUDA graph.

A step of a tiny network is some hundred kernels of a few microseconds each, and launching one from Python takes longer
than running it; a graph launches all at once (https://docs.pytorch.org/docs/stable/notes/cuda.html, CUDA Graphs). The
optimiser's step stays outside: the one-cycle schedule moves AdamW's first beta, a number of Python's that a graph
would keep as it was when captured.

Written without a GPU at hand: its bookkeeping is tested with a stand-in for the graph, its speed is not measured.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Passes = Callable[[Tensor, Tensor], Tensor]
"""Images `(b, k, c, h, w)` and labels to losses `(k,)`, the gradients left in the parameters."""

_EAGER_STEPS = 3
"""Before the capture, on a stream of their own, so that kernels are chosen and workspaces allocated outside it."""


class CapturedPasses:
    """The passes of one candidate, each call on a batch of the same shape; captured after a few calls.

    From the capture on every parameter keeps the tensor of its gradient, which each call overwrites.

    Args:
        passes: What to capture; it may not wait for the device, nor draw.
        device: The GPU.
    """

    def __init__(self, passes: Passes, device: torch.device) -> None:
        self._passes = passes
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._eager_steps = _EAGER_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Losses `(k,)`; those of a captured call hold until the next."""
        if self._eager_steps:
            self._eager_steps -= 1
            return self._eagerly(images, labels)
        if self._graph is None:
            self._capture(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        assert self._graph is not None
        self._graph.replay()
        return self._losses

    def _eagerly(self, images: Tensor, labels: Tensor) -> Tensor:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = self._passes(images, labels)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        """Record the passes without carrying them out."""
        self._images, self._labels = images.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = self._passes(self._images, self._labels)
