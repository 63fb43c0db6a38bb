"""Torchvision's sets by name: how the splits of each are asked for, and their images as one value.

Sets that hold their pixels as an array are read at once, the others image by image. Nothing is fetched unless asked.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.data import ANY, TEST, VALIDATION, ImageData
from search.dataconfig import DataConfig, TorchvisionName
from search.errors import DataError
from search.sources.arrays import as_images, as_labels, join, own_split_of, resized
from search.sources.cache import keep
from search.sources.imagefile import Head, UnusableImageError, head_of, pixels_of
from search.sources.notes import notes_on
from search.sources.reading import Allocate, standardise

Asked = Mapping[str, str | bool]
"""Keywords of a torchvision class."""


def _named(train: str, *, validation: str | None = None, test: str) -> dict[np.int8, Asked]:
    """Splits that the class asks for by name."""
    named: dict[np.int8, Asked] = {ANY: {"split": train}, TEST: {"split": test}}
    return named if validation is None else named | {VALIDATION: {"split": validation}}


_FLAG: dict[np.int8, Asked] = {ANY: {"train": True}, TEST: {"train": False}}
_WHOLE: dict[np.int8, Asked] = {ANY: {}}
_TRAIN_TEST = _named("train", test="test")
_THREE = _named("train", validation="val", test="test")
_SPLITS: dict[TorchvisionName, dict[np.int8, Asked]] = {
    "CIFAR10": _FLAG,
    "CIFAR100": _FLAG,
    "Caltech101": _WHOLE,
    "Caltech256": _WHOLE,
    "Country211": _named("train", validation="valid", test="test"),
    "DTD": _THREE,
    # Of its six ways to group the characters, the one with equally many of each class.
    "EMNIST": {split: {"split": "balanced", **asked} for split, asked in _FLAG.items()},
    "EuroSAT": _WHOLE,
    "FER2013": _TRAIN_TEST,
    "FGVCAircraft": _THREE,
    "FashionMNIST": _FLAG,
    "Flowers102": _THREE,
    "Food101": _TRAIN_TEST,
    "GTSRB": _TRAIN_TEST,
    "ImageNet": _named("train", test="val"),  # whose test labels were never published
    "Imagenette": _named("train", test="val"),
    "KMNIST": _FLAG,
    "MNIST": _FLAG,
    "OxfordIIITPet": _named("trainval", test="test"),
    "PCAM": _THREE,
    "QMNIST": _FLAG,
    "RenderedSST2": _THREE,
    "SEMEION": _WHOLE,
    "STL10": _TRAIN_TEST,
    "SUN397": _WHOLE,
    "SVHN": _TRAIN_TEST,
    "StanfordCars": _TRAIN_TEST,
    "USPS": _FLAG,
}
_NOT_FETCHED = ("FER2013", "ImageNet", "StanfordCars")
"""Sets that torchvision cannot fetch, for want of a licence or an address."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class _LabelledHead(Head):
    """The head of an image that comes with its label."""

    label: int = -1


@dataclass(frozen=True)
class _SetReader:
    """Images that sets open one by one; see `reading.ImageReader`."""

    sets: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def head(self, index: int) -> _LabelledHead:
        image, label = self._item(index)
        head = head_of(image)
        if not isinstance(label, int | np.integer):
            msg = f"no label, but {label!r}"
            raise UnusableImageError(msg)
        return _LabelledHead(head.size, head.grey, label=int(label))

    def pixels(self, index: int, resolution: int | None, grey: bool) -> NDArray[np.uint8]:
        return pixels_of(self._item(index)[0], resolution, grey=grey)

    def _item(self, index: int) -> tuple[Image.Image, Any]:
        """An image and its label.

        Raises:
            UnusableImageError: It cannot be opened.
        """
        place = index
        for number, each in enumerate(self.sets):
            if place < len(each) or number == len(self.sets) - 1:
                break
            place -= len(each)
        try:
            image, label = each[place]
        except Exception as error:  # what torchvision raises on a missing or damaged file is not settled
            raise UnusableImageError(str(error) or type(error).__name__) from None
        return image, label


def load_set(config: DataConfig) -> ImageData:
    """A set of torchvision's, its own test and validation images marked as such; training images come first.

    Raises:
        DataError: It is not below `data.path` and was not to be fetched or could not be, or is damaged.
    """
    name = config.source
    assert name in _SPLITS
    root = Path(str(config.path)).expanduser()
    splits = dict(sorted(_SPLITS[name].items()))
    sets = tuple(_open(name, root, asked, config.download) for asked in splits.values())
    where = f"{name} in {root}"
    if not all(hasattr(each, "data") for each in sets):
        return _load_one_by_one(name, root, sets, [*splits], config.resolution)
    images = [resized(as_images(each.data, where), config.resolution) for each in sets]
    counts = [*map(len, images)]
    labels = [_labels(each, count, where) for each, count in zip(sets, counts, strict=True)]
    return join(name, where, images, labels, own_split_of([*splits], counts), _class_names(sets[0]))


def _open(name: TorchvisionName, root: Path, asked: Asked, download: bool) -> Any:  # noqa: ANN401 # 28 classes
    """One split of a set, fetched only where it is not there.

    Raises:
        DataError: It cannot be opened; with what torchvision said.
    """
    from torchvision import datasets  # here: importing it takes seconds

    make = getattr(datasets, name)
    fetchable = name not in _NOT_FETCHED
    for fetch in (False, True) if download and fetchable else (False,):
        try:
            with redirect_stdout(sys.stderr):
                return make(str(root), **asked, **({"download": fetch} if fetchable else {}))
        except Exception as error:  # as many kinds as there are sets
            said = str(error) or type(error).__name__
    split = ", ".join(map(str, asked.values())) if "split" in asked else ""
    if download and fetchable:
        advice = "see that the network and the disk allow it, or set data.path to where the set lies"
    elif fetchable:
        advice = "set data.download: true to fetch it, or data.path to where it lies"
    else:
        advice = f"torchvision cannot fetch {name}: get it from its authors and set data.path to where it lies"
    msg = f"{name}{split and f' ({split})'} was looked for below {root}, but could not be opened ({said}); {advice}"
    raise DataError(msg)


def _load_one_by_one(
    name: str, root: Path, sets: tuple[Any, ...], splits: list[np.int8], resolution: int | None
) -> ImageData:
    """Images of sets that open files as they are asked for; kept, since that takes long.

    Raises:
        DataError: An image cannot be used.
    """
    import torchvision

    problems: dict[int, str] = {}
    lengths = [*map(len, sets)]
    own_split = own_split_of(splits, lengths)

    def make(allocate: Allocate) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        done = standardise(_SetReader(sets), resolution, allocate, skip=False)
        problems.update(done.problems)
        labels = np.array([head.label for head in done.heads if isinstance(head, _LabelledHead)], np.int64)
        names = [f"image {index}" for index in done.usable]
        notes = [] if problems else notes_on(done.heads, done.digests, names, labels, own_split)
        return None if problems else (done.images, {"labels": labels.tolist(), "notes": notes})

    origin = json.dumps([name, str(root.resolve()), resolution])
    kept = keep(origin, json.dumps([torchvision.__version__, lengths]), make)  # a published set does not change
    where = f"{name} in {root}"
    if kept is None:
        few = "; ".join(f"image {index}: {reason}" for index, reason in list(problems.items())[:_MOST_NAMED])
        msg = f"{where} has {len(problems):,} images that cannot be used ({few}); get the set anew"
        raise DataError(msg)
    labels = np.array(kept.facts["labels"], np.int64)
    ends = np.cumsum(lengths)[:-1]
    notes = (*kept.facts["notes"], *filter(None, [kept.unkept]))
    return join(name, where, [kept.images], np.split(labels, ends), own_split, _class_names(sets[0]), notes)


def _labels(opened: Any, count: int, where: str) -> NDArray[np.int64]:  # noqa: ANN401 # 28 classes
    labels = np.asarray(opened.targets if hasattr(opened, "targets") else opened.labels)
    if labels.ndim == 2:  # QMNIST's, whose further columns say who wrote the digit
        labels = labels[:, 0]
    return as_labels(labels, count, f"{where}: labels")


def _class_names(opened: Any) -> tuple[str, ...]:  # noqa: ANN401 # 28 classes
    """Names of the classes, the first of those that have several; empty where the set has none."""
    names: Sequence[str | Sequence[str]] = getattr(opened, "classes", getattr(opened, "categories", None)) or ()
    return tuple(each if isinstance(each, str) else each[0] for each in names)
