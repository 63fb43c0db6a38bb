"""Labelled images, and who may see which of them.

Owns loading, the three splits and the normalisation. Every split is drawn here and nowhere else, so that leakage can
be looked for in one file. Knows nothing of torch or networks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search import combinations
from search.config import DataConfig
from search.errors import DataError

# First words of the entropy, so that no two kinds of draw share a stream whatever the seeds.
_TEST_STREAM, _FIXED_STREAM, _REDRAWN_STREAM = 1, 2, 3
_COMBINATIONS_STREAM = 5  # 4 is the data order's, in `training`


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled data set in memory.

    Attributes:
        images: Shape `(n_images, channels, height, width)`, uint8 or float32, not normalised.
        labels: Whole numbers in `[0, classes)`, shape `(n_images,)`.
        classes: How many classes there are.
        name: What people call the data set.
        merged_from: Labels before classes were merged, shape `(n_images,)`; None where none were.

    Raises:
        DataError: Images and labels that do not fit together or are of another type.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: int
    name: str
    merged_from: NDArray[np.int64] | None = None

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
        """SHA-256 of images, labels, strata, shapes and types; equal for equal data on any machine."""
        digest = hashlib.sha256(f"{self.images.shape} {self.images.dtype} {self.classes}".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels.astype("<i8")).data)
        if self.merged_from is not None:
            digest.update(np.ascontiguousarray(self.merged_from.astype("<i8")).data)
        return digest.hexdigest()

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and mean square of each channel of each image, both `(n_images, channels)`."""
        mean = self.images.mean(axis=(2, 3), dtype=np.float64)
        square = np.stack([np.square(image, dtype=np.float64).mean(axis=(1, 2)) for image in self.images])
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


@dataclass(frozen=True)
class TrainValidation:
    """The images one run trains on, and those the search scores it on; sorted indices."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]


class Splits:
    """Which images test, validate and train.

    The test split is fixed by `split_seed` for the study's life. Training and validation share the rest; with
    `redraw_validation` they are drawn anew for every run seed. All draws are stratified: a class has the same number
    of images in a split whatever the seed, so the splits of all seeds are equally large.

    Args:
        strata: Class of each image, shape `(n_images,)`; where classes were merged, the class before.
        config: Fractions, of all images, and seeds.

    Raises:
        DataError: A class too small to have an image in each split.
    """

    def __init__(self, strata: NDArray[np.int64], config: DataConfig) -> None:
        self._config = config
        counts = np.bincount(strata)
        test = _allocate(counts, config.test_fraction)
        self._validation_counts = _allocate(counts, config.validation_fraction)
        _check_classes(
            counts,
            {"test": test, "validation": self._validation_counts, "training": counts - test - self._validation_counts},
        )
        members = [np.flatnonzero(strata == label) for label in range(len(counts))]
        chosen, self._rest = _draw(members, test, np.random.default_rng((_TEST_STREAM, config.split_seed)))
        self.test = np.sort(np.concatenate(chosen))
        """Indices of the test images, sorted."""

    def train_validation(self, seed: int) -> TrainValidation:
        """The training and validation images of the run with this seed; disjoint from `test` and from each other."""
        if self._config.redraw_validation:
            rng = np.random.default_rng((_REDRAWN_STREAM, self._config.split_seed, seed))
        else:
            rng = np.random.default_rng((_FIXED_STREAM, self._config.split_seed))
        validation, training = _draw(self._rest, self._validation_counts, rng)
        return TrainValidation(np.sort(np.concatenate(training)), np.sort(np.concatenate(validation)))


def load(config: DataConfig) -> ImageData:
    """The data set named by the configuration, its classes merged or dropped as that says.

    Raises:
        DataError: The configuration names a class the data do not have.
    """
    match config.source:
        case "digits":
            data = _digits()
        case "combinations":
            data = _combinations(config.features, config.images)
    groups = config.class_groups()
    return regroup(data, groups) if groups else data


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
    return ImageData(data.images[kept], labels[kept], len(groups), data.name, merged_from=data.strata[kept])


def _combinations(features: int, images: int) -> ImageData:
    """Combinations of features; see `search.combinations`. Every study of as many features and images has the same."""
    rng = np.random.default_rng((_COMBINATIONS_STREAM, features, images))
    return ImageData(*combinations.generate(features, images, rng), 2**features - 1, f"combinations of {features}")


def _digits() -> ImageData:
    """1,797 8x8 images of handwritten digits, pixels 0 to 16 (Alpaydin and Kaynak 1998), from scikit-learn."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped] # here: importing it takes a second

    images, labels = load_digits(return_X_y=True)
    return ImageData(images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64), 10, "digits")


def _allocate(counts: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Images per class for a split, by largest remainder: exact in total, within one of each class's share.

    scikit-learn's stratified split breaks ties at random, so a rare class could be missing under some seeds only.
    """
    shares = counts * fraction
    allocated: NDArray[np.int64] = np.floor(shares).astype(np.int64)
    missing = round(float(shares.sum())) - int(allocated.sum())
    allocated[np.argsort(allocated - shares, kind="stable")[:missing]] += 1
    return allocated


def _check_classes(counts: NDArray[np.int64], splits: Mapping[str, NDArray[np.int64]]) -> None:
    for split, allocated in splits.items():
        for label in np.flatnonzero((allocated < 1) & (counts > 0)):
            msg = (
                f"class {label} has {counts[label]} images, which leaves none for the {split} split; every class "
                "needs one in each of test, validation and training: add images of it or change the fractions"
            )
            raise DataError(msg)


def _draw(
    members: list[NDArray[np.int64]], counts: NDArray[np.int64], rng: np.random.Generator
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Per class, `counts` of its members drawn at random, and the others."""
    shuffled = [rng.permutation(indices) for indices in members]
    return (
        [indices[:count] for indices, count in zip(shuffled, counts, strict=True)],
        [indices[count:] for indices, count in zip(shuffled, counts, strict=True)],
    )
