"""The images as several replicas see them at once: each through the normalisation of its own training split.

Knows nothing of networks, splits or training.

Dimension legend: b batch, k replicas, c channels, h height, w width.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ReplicaImages:
    """The data set on the device, seen by each replica through its own normalisation.

    Attributes:
        images: `(n_images, c, h, w)`, as stored.
        labels: `(n_images,)`.
        mean: Of each replica's training images, `(k, c, 1, 1)`.
        deviation: Likewise.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    deviation: Tensor

    def gather(
        self, indices: Tensor, vary: Callable[[Tensor], Tensor] = lambda images: images
    ) -> tuple[Tensor, Tensor]:
        """Images `(b, k, c, h, w)` and labels `(b, k)` at indices `(b, k)`, the images varied before normalisation."""
        images = vary(self.images[indices]).float()
        return images.sub_(self.mean).div_(self.deviation), self.labels[indices]
