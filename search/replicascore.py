"""How several replicas do on their images at once.

Knows nothing of networks or training.

Dimension legend: b batch, k replicas, n classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class ReplicaScore:
    """Of every replica: per image whether it is right `(n_images, k)`, mean loss and accuracy `(k,)`."""

    correct: NDArray[np.bool_]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    def mean_accuracy(self) -> float:
        """Over the replicas whose loss is finite; NaN without one."""
        finite = np.isfinite(self.loss)
        return float(self.accuracy[finite].mean()) if finite.any() else math.nan


def replica_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every image and replica `(b, k)`, in nats.

    Args:
        logits: `(b, k, n)`.
        labels: `(b, k)`, or shares of the classes `(b, k, n)`.
    """
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="none")
    return losses.view(logits.shape[:2])
