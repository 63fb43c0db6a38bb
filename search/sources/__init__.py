"""Where images come from: each source of the configuration, read into one value.

Knows nothing of torch's networks, or of splits.
"""

from pathlib import Path

import numpy as np

from search import combinations
from search.data import ImageData, regroup
from search.dataconfig import DataConfig
from search.sources.arrays import call_factory, read_npz
from search.sources.folder import load_folder
from search.sources.groups import with_groups
from search.sources.torchvisionsets import load_set

_COMBINATIONS_STREAM = 5  # first word of the entropy; `augment` lists all of them


def load(config: DataConfig) -> ImageData:
    """The data set named by the configuration, its classes merged or dropped as that says.

    Raises:
        ConfigError: A factory that cannot be called.
        DataError: Images that cannot be read or do not fit together, or a class the data do not have.
    """
    names: list[str] | None = None
    match config.source:
        case "digits":
            data = _digits()
        case "combinations":
            data = _combinations(config.features, config.images)
        case "folder":
            data, names = load_folder(config)
        case "npz":
            data = read_npz(Path(str(config.path)).expanduser(), config.resolution)
        case "factory":
            data = call_factory(str(config.factory), config.resolution)
        case _:
            data = load_set(config)
    if config.groups is not None:
        data = with_groups(data, Path(config.groups).expanduser(), names or [*map(str, range(len(data.labels)))])
    groups = config.class_groups()
    return regroup(data, groups) if groups else data


def _combinations(features: int, images: int) -> ImageData:
    """Combinations of features; see `search.combinations`. Every study of as many features and images has the same."""
    rng = np.random.default_rng((_COMBINATIONS_STREAM, features, images))
    return ImageData(*combinations.generate(features, images, rng), 2**features - 1, f"combinations of {features}")


def _digits() -> ImageData:
    """1,797 8x8 images of handwritten digits, pixels 0 to 16 (Alpaydin and Kaynak 1998), from scikit-learn."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped] # here: importing it takes a second

    images, labels = load_digits(return_X_y=True)
    return ImageData(images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64), 10, "digits")
