"""Labelled images in memory: what every source gives and everything else takes.

Owns the value, its fingerprint, the normalisation and what augmentation it bears. Where images come from is the
business of `sources`, who may see which of them that of `splits`. Knows nothing of torch or networks.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError, DataError
from search.trainingconfig import AugmentConfig

ANY, VALIDATION, TEST = np.int8(0), np.int8(1), np.int8(2)
"""Where the data themselves put an image: free to train or validate, or in one split."""
_BLOCK = 2**16
"""Numbers worked on at a time: so many fit a processor's cache as float64."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled data set in memory.

    Attributes:
        images: Shape `(n_images, channels, height, width)`, uint8 or float32, not normalised.
        labels: Whole numbers in `[0, classes)`, shape `(n_images,)`.
        classes: How many classes there are.
        name: What people call the data set.
        merged_from: Labels before classes were merged, shape `(n_images,)`; None where none were.
        class_names: What the classes are called, in their order; empty where they have numbers only.
        own_split: Which split the data put each image in, shape `(n_images,)`, `ANY`, `VALIDATION` or `TEST`; None
            where they come without splits.
        groups: Number of each image's group, whose images stay in one split, shape `(n_images,)`; None without groups.
        notes: What a user should know of how these images were read, a sentence each.

    Raises:
        DataError: Images and labels that do not fit together or are of another type.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: int
    name: str
    merged_from: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    own_split: NDArray[np.int8] | None = None
    groups: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype not in (np.uint8, np.float32):
            msg = (
                f"{self.name}: images of shape {self.images.shape} and type {self.images.dtype}; give "
                "(images, channels, height, width) as uint8 or float32"
            )
            raise DataError(msg)
        if self.labels.shape != self.images.shape[:1] or not len(self.labels):
            msg = f"{self.name}: {len(self.images)} images, labels of shape {self.labels.shape}; give one label each"
            raise DataError(msg)
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            msg = (
                f"{self.name}: labels from {self.labels.min()} to {self.labels.max()} for {self.classes} classes; "
                f"number the classes from 0 to {self.classes - 1}"
            )
            raise DataError(msg)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def strata(self) -> NDArray[np.int64]:
        """What splits are stratified by, shape `(n_images,)`: the labels before merging.

        So merging classes changes no split: the same images test, validate and train, whatever they are called.
        """
        return self.labels if self.merged_from is None else self.merged_from

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides a study: equal for equal images, labels, strata, own splits and groups."""
        digest = hashlib.sha256(f"{self.images.shape} {self.images.dtype} {self.classes}".encode())
        digest.update(np.ascontiguousarray(self.images).data)  # little-endian, as every machine torch runs on
        digest.update(np.ascontiguousarray(self.labels.astype("<i8")).data)
        if self.merged_from is not None:
            digest.update(np.ascontiguousarray(self.merged_from.astype("<i8")).data)
        for name, values in (("own split", self.own_split), ("groups", self.groups)):
            if values is not None:
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(values.astype("<i8")).data)
        return digest.hexdigest()

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and mean square of each channel of each image, both `(n_images, channels)`."""
        mean = np.empty(self.images.shape[:2])
        square = np.empty_like(mean)
        block = max(1, _BLOCK // self.images[0].size)
        for start in range(0, len(mean), block):
            pixels = self.images[start : start + block].astype(np.float64)
            mean[start : start + block] = pixels.mean(axis=(2, 3))
            square[start : start + block] = np.square(pixels, out=pixels).mean(axis=(2, 3))
        return mean, square

    def normalisation(self, training: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of each channel over the training images alone.

        Args:
            training: Indices of the images that train; no other image is looked at.

        Returns:
            Two arrays of shape `(channels,)`; a constant channel gets standard deviation 1.
        """
        mean, square = (moment[training].mean(axis=0) for moment in self._moments)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        deviation[deviation == 0] = 1
        return mean.astype(np.float32), deviation.astype(np.float32)


def regroup(data: ImageData, groups: Sequence[Sequence[int]]) -> ImageData:
    """The data with other classes: each group of old classes is one, images of no group are dropped.

    Merging keeps every image, so studies of few and many classes train on the same pixels; chance and the width of
    the head differ all the same. Dropping leaves fewer images to train on, which alone lowers accuracy.

    Args:
        data: All images.
        groups: Old classes of each new class, disjoint.

    Raises:
        DataError: A class the data do not have.
    """
    new = np.full(data.classes, -1)
    for number, group in enumerate(groups):
        for label in group:
            if label >= data.classes:
                msg = (
                    f"data.classes names class {label}, but {data.name} has {data.classes} classes; name them from 0 "
                    f"to {data.classes - 1}"
                )
                raise DataError(msg)
            new[label] = number
    labels = new[data.labels]
    kept = labels >= 0
    return replace(
        data,
        images=data.images[kept],
        labels=labels[kept],
        classes=len(groups),
        merged_from=data.strata[kept],
        class_names=tuple("+".join(data.class_names[label] for label in group) for group in groups)
        if data.class_names
        else (),
        own_split=None if data.own_split is None else data.own_split[kept],
        groups=None if data.groups is None else data.groups[kept],
    )


def check_augment(config: AugmentConfig, data: ImageData) -> None:
    """Refuse what the images do not allow.

    Raises:
        ConfigError: A crop by more than half of the image, or RandAugment for other images than uint8 of 1 or 3
            channels.
    """
    channels, height, width = data.image_shape
    if 2 * config.crop > min(height, width):
        msg = (
            f"training.augment.crop is {config.crop}, but images of {data.name} are {height}x{width}; shift by at "
            f"most half of that: set it to {min(height, width) // 2} or less"
        )
        raise ConfigError(msg)
    if config.randaugment and (data.images.dtype != np.uint8 or channels not in (1, 3)):
        msg = (
            f"training.augment.randaugment is {config.randaugment}, but images of {data.name} are {data.images.dtype} "
            f"of {channels} channels; RandAugment takes uint8 of 1 or 3 channels: leave it out, or give such images"
        )
        raise ConfigError(msg)
