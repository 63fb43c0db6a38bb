"""What settles a run: images, split, order and initial weights come from its work and its seed, on every side."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from benchmarks.work import Work
from numpy.typing import NDArray
from torch import Tensor, nn

from search.data import ImageData
from search.dataconfig import DataConfig
from search.networkconfig import NetworkConfig
from search.networks import build
from search.schedule import FilterSchedule
from search.sources import load
from search.splits import Splits

_ORDER_STREAM = 4
"""The product's, see `search.training`: with it every side visits the images in the same order."""


@functools.cache
def images_of(work: Work) -> ImageData:
    return load(DataConfig(source="npz", path=str(work.path)))


@functools.cache
def splits_of(work: Work) -> Splits:
    return Splits(images_of(work), DataConfig(source="npz", path=str(work.path)))


def training_of(work: Work, seed: int) -> NDArray[np.int64]:
    """Indices of the images that train under a seed."""
    return splits_of(work).train_validation(seed).training


def network_of(work: Work, schedule: FilterSchedule, seed: int) -> nn.Module:
    """The untrained network."""
    torch.manual_seed(seed)
    return build(NetworkConfig(), schedule, images_of(work).image_shape[0], images_of(work).classes)


def normalised(work: Work, seed: int) -> tuple[Tensor, Tensor]:
    """All images `(n_images, c, h, w)`, normalised by those that train under a seed, and their labels."""
    data = images_of(work)
    mean, deviation = (torch.from_numpy(each)[:, None, None] for each in data.normalisation(training_of(work, seed)))
    return (torch.from_numpy(data.images) - mean) / deviation, torch.from_numpy(data.labels)


class Order:
    """The order of a run's `n` training images, drawn anew each time it is gone through; a sampler for DataLoader."""

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._rng = n, np.random.default_rng((_ORDER_STREAM, seed))

    def __iter__(self) -> Iterator[int]:
        return iter(self._rng.permutation(self._n).tolist())

    def __len__(self) -> int:
        return self._n
