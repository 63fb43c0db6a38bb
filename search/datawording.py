"""What a study's images are, in plain words: their classes, and which of them train, validate and test."""

import numpy as np

from search.data import VALIDATION, ImageData
from search.dataconfig import DataConfig
from search.splits import Splits
from search.wording import counted

_MOST_CLASSES = 12


def images_text(data: ImageData) -> str:
    """The data set's name, how many images it has and their shape: `digits: 1,797 images 8x8x1`."""
    channels, height, width = data.image_shape
    return f"{data.name}: {len(data.labels):,} images {height}x{width}x{channels}"


def classes_text(data: ImageData) -> str:
    """How many classes there are, what they are called and how many images each has; of many, the first."""
    counts = np.bincount(data.labels, minlength=data.classes)
    least, most = counts.min(), counts.max()
    named = [f"{number} {name}" for number, name in enumerate(data.class_names)] or [*map(str, range(data.classes))]
    said = [name if least == most else f"{name} ({count:,})" for name, count in zip(named, counts, strict=True)]
    more = [f"and {data.classes - _MOST_CLASSES} more"] if data.classes > _MOST_CLASSES else []
    of = f"{data.classes} of {least:,} " + ("images each" if least == most else f"to {most:,} images")
    return f"{of}: {', '.join([*said[:_MOST_CLASSES], *more])}"


def splits_text(data: ImageData, config: DataConfig, share: float) -> str:
    """How many images train, validate and test, and where these splits come from.

    Args:
        data: The images.
        config: How they are split.
        share: Share of the training split that a run trains on.
    """
    splits = Splits(data, config)
    drawn = splits.train_validation(0)
    own_validation = data.own_split is not None and VALIDATION in data.own_split
    if own_validation:
        whose = "the data's own"
    else:
        whose = "redrawn for every seed" if config.redraw_validation and data.groups is None else "drawn once"
    test = "the data's own" if splits.own_test else "drawn once"
    groups = "" if data.groups is None else f"; {counted(len(np.unique(data.groups)), 'group')}, each in one of them"
    briefly = f" (a run trains on {100 * share:.3g} % of them)" if share < 1 else ""
    return (
        f"{len(drawn.training):,} training{briefly}, {len(drawn.validation):,} validation ({whose}) and "
        f"{len(splits.test):,} test images ({test}){groups}"
    )
