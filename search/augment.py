"""Varies training images, batch by batch and on the device.

Owns the augmentations and their random draws. What a run is scored on never comes here. Knows nothing of networks.

Dimension legend: b batch, k replicas, c channels, h height, w width, n classes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from search.trainingconfig import AugmentConfig

if TYPE_CHECKING:
    from torchvision.transforms import v2

_AUGMENT_STREAM = 7
"""First word of the draws' entropy. No two kinds of draw share a stream, since the words are: in `splits` 1 (test), 2
(fixed validation), 3 (redrawn validation) and 6 (share), in `training` 4 (data order) and 8 (what networks draw), in
`sources` 5, here 7."""
_MAGNITUDE = 9
"""Of 30, as Cubuk (2020, 1909.13719) chose for ImageNet, and torchvision's default."""
_GROUP = 8
"""Images that share RandAugment's operations. One of 28x28 took 128 us by itself, 22 us in groups of 8, 13 us of 16
and 6 us of 64 on one core, beside some 130 us to train 8-16-32 on it; groups of 8 draw 8 times for a batch of 64."""


class Augmentation:
    """What varies the batches of some replicas.

    Every replica draws from a generator of its own seed, so its images vary alike whatever it is trained together
    with, and torch's and numpy's global generators are neither read nor moved.

    Args:
        config: Which augmentations; at least one.
        classes: How many there are.
        seeds: One per replica.

    Attributes:
        generators: What the replicas draw from.
    """

    def __init__(self, config: AugmentConfig, classes: int, seeds: Sequence[int]) -> None:
        from torchvision.transforms import v2  # here: importing it takes a second and 90 MiB

        self._config = config
        self.generators = [np.random.default_rng((_AUGMENT_STREAM, seed)) for seed in seeds]
        self._randaugment = v2.RandAugment(config.randaugment, _MAGNITUDE) if config.randaugment else None
        alphas = ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
        self._mixers = [mixer(alpha=alpha, num_classes=classes) for mixer, alpha in alphas if alpha]

    def vary(self, images: Tensor) -> Tensor:
        """Images `(b, k, c, h, w)` as stored, cropped, flipped and under RandAugment, in that order.

        Crop and flip are drawn for every image and done for all at once by indexing: torchvision's own, given a
        batch, treat every image of it alike.
        """
        shape, crop = images.shape, self._config.crop
        flat = images.flatten(0, 1)
        if crop:
            corners = self._draw(images, lambda rng: rng.integers(0, 2 * crop, (shape[0], 2), endpoint=True))
            flat = _shift(flat, corners.flatten(0, 1), crop)
        if self._config.flip:
            flipped = self._draw(images, lambda rng: rng.random(shape[0]) < 0.5).flatten()
            flat = torch.where(flipped[:, None, None, None], flat.flip(-1), flat)
        varied = flat.view(shape)
        return self._apply_randaugment(varied, self._randaugment) if self._randaugment else varied

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Each replica's images with others of its batch mixed in.

        Args:
            images: `(b, k, c, h, w)`, normalised.
            labels: `(b, k)`.

        Returns:
            Images of the same shape, and labels as shares of the classes `(b, k, n)`; both as they came without mixup
            and CutMix.
        """
        if not self._mixers:
            return images, labels
        mixed = []
        for replica, rng in enumerate(self.generators):
            mixer = self._mixers[rng.integers(len(self._mixers))]
            with drawing_from(rng):
                mixed.append(mixer(images[:, replica], labels[:, replica]))
        together, shares = (torch.stack(column, dim=1) for column in zip(*mixed, strict=True))
        return together, shares

    def _apply_randaugment(self, images: Tensor, randaugment: "v2.RandAugment") -> Tensor:
        varied = []
        for replica, rng in enumerate(self.generators):
            with drawing_from(rng):
                varied.append(torch.cat([randaugment(group) for group in torch.split(images[:, replica], _GROUP)]))
        return torch.stack(varied, dim=1)

    def _draw(self, images: Tensor, draw: Callable[[np.random.Generator], NDArray[np.generic]]) -> Tensor:
        """What every replica draws for its images `(b, k, ...)`, shape `(b, k, ...)`, where the images are."""
        return torch.from_numpy(np.stack([draw(rng) for rng in self.generators], axis=1)).to(images.device)


def _shift(images: Tensor, corners: Tensor, most: int) -> Tensor:
    """Windows of the images `(b, c, h, w)` framed in `most` pixels of 0, from corners `(b, 2)` in [0, 2 * most]."""
    height, width = images.shape[-2:]
    framed = functional.pad(images, (most,) * 4)
    windows = framed.unfold(2, height, 1).unfold(3, width, 1)  # a view: b c 2*most+1 2*most+1 h w
    rows, columns = corners.unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


@contextmanager
def drawing_from(rng: np.random.Generator, device: torch.device | None = None) -> Iterator[None]:
    """Torch's global generator as seeded by `rng`, for what draws from no other, and put back afterwards.

    Args:
        rng: What the seed is drawn from.
        device: Where else than on the CPU is drawn: a GPU, whose generator is seeded likewise.
    """
    gpus = [] if device is None or device.type != "cuda" else [device]
    with torch.random.fork_rng(devices=gpus):
        seed = int(rng.integers(2**63))
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
