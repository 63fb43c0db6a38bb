"""Images that come as arrays: checked, brought to one layout, made into one value.

Serves every source that gives arrays. Where they were read is for others to know.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from search.data import ANY, TEST, ImageData
from search.errors import DataError
from search.imports import import_function

_KEYS = ("x_train", "y_train", "x_test", "y_test", "classes")
Pixels = NDArray[np.uint8] | NDArray[np.float32]


def read_npz(path: Path, resolution: int | None) -> ImageData:
    """The images of a NumPy file with `x_train` and `y_train`, and `x_test`, `y_test` and `classes` where it has them.

    Raises:
        DataError: The file cannot be read, holds Python objects, or its arrays do not fit together.
    """
    try:
        with path.open("rb") as opened:  # by ourselves: numpy leaves it open when it is damaged
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                msg = f"{path} holds one array, not several under their names; write it with numpy.savez_compressed"
                raise DataError(msg)
            arrays = {key: file[key] for key in _KEYS if key in file.files}
            others = [key for key in file.files if key not in _KEYS]
    except FileNotFoundError:
        msg = f"data.path {path} does not exist; name a NumPy file with x_train and y_train"
        raise DataError(msg) from None
    except MemoryError:
        msg = f"{path} declares arrays larger than the memory there is; keep fewer or smaller images in it"
        raise DataError(msg) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        msg = (
            f"{path} cannot be read as a NumPy file ({error}); write it with numpy.savez_compressed, from arrays "
            "without Python objects"
        )
        raise DataError(msg) from None
    return from_mapping(arrays, path.stem, str(path), resolution, others)


def call_factory(text: str, resolution: int | None) -> ImageData:
    """The images that a function of the user's own returns; see `read_npz` for what it gives.

    Args:
        text: `package.module:function`.
        resolution: See `from_mapping`.

    Raises:
        ConfigError: There is no such function.
        DataError: It raises, or returns something else.
    """
    function = import_function(text, "data.factory")
    try:
        arrays = function()
    except Exception as error:
        msg = f"data.factory {text} raised {type(error).__name__}: {error}; mend it, --debug shows where"
        raise DataError(msg) from error
    if not isinstance(arrays, Mapping):
        msg = f"data.factory {text} returned a {type(arrays).__name__}; return a dict with x_train and y_train"
        raise DataError(msg)
    others = [str(key) for key in arrays if key not in _KEYS]
    arrays = {key: arrays[key] for key in _KEYS if key in arrays}
    return from_mapping(arrays, text.partition(":")[0].rpartition(".")[2], text, resolution, others)


def from_mapping(
    arrays: Mapping[str, Any], name: str, where: str, resolution: int | None, others: Sequence[str] = ()
) -> ImageData:
    """Arrays under their names as one value, training images first.

    Args:
        arrays: `x_train` and `y_train`, and `x_test`, `y_test` and `classes`, the names of the classes, or not.
        name: What people call the data set.
        where: Where they come from, for messages.
        resolution: Height and width to bring images to; None leaves their size.
        others: Further keys, which have no use.

    Raises:
        DataError: Some are missing, of no use, or do not fit together.
    """
    needed = ["x_train", "y_train", *(("x_test", "y_test") if {"x_test", "y_test"} & {*arrays} else ())]
    lacking = [key for key in needed if key not in arrays]
    if lacking:
        came = ", ".join([*arrays, *others]) or "nothing"
        msg = (
            f"{where} has {came}, but no {' and no '.join(lacking)}; x_train and y_train must be there, x_test comes "
            "with y_test"
        )
        raise DataError(msg)
    splits = {"train": ANY, "test": TEST} if "x_test" in arrays else {"train": ANY}
    images = [resized(as_images(arrays[f"x_{split}"], f"{where}: x_{split}"), resolution) for split in splits]
    counts = [*map(len, images)]
    labels = [
        as_labels(arrays[f"y_{split}"], count, f"{where}: y_{split}")
        for split, count in zip(splits, counts, strict=True)
    ]
    own_split = own_split_of([*splits.values()], counts)
    notes = (f"{where} has {', '.join(others)} besides: ignored",) if others else ()
    return join(name, where, images, labels, own_split, _names(arrays.get("classes", ()), where), notes)


def join(
    name: str,
    where: str,
    images: Sequence[Pixels],
    labels: Sequence[NDArray[np.int64]],
    own_split: NDArray[np.int8] | None,
    class_names: tuple[str, ...],
    notes: tuple[str, ...] = (),
) -> ImageData:
    """Images of several splits as one value.

    Args:
        name: What people call the data set.
        where: Where they come from, for messages.
        images: In parts that follow each other, shape `(n_images, channels, height, width)` each.
        labels: Of each split, those to train on first.
        own_split: See `ImageData`.
        class_names: Empty where classes have numbers only.
        notes: For the value.

    Raises:
        DataError: Parts of different shapes or types, or classes without images to train on.
    """
    kinds = [(each.shape[1:], str(each.dtype)) for each in images]
    if len(set(kinds)) > 1:
        shapes = " and ".join(f"{shape} as {dtype}" for shape, dtype in dict.fromkeys(kinds))
        msg = f"{where}: images of shapes {shapes}; bring all splits to one shape and type"
        raise DataError(msg)
    together = np.concatenate(labels)
    classes = len(class_names) or max(int(together.max()) + 1, 1)
    missing = np.setdiff1d(np.arange(classes), labels[0])
    if together.min() < 0 or together.max() >= classes or missing.size:
        few = ", ".join(map(str, missing[:5])) + ", ..." * (missing.size > 5)
        msg = (
            f"{where}: labels from {together.min()} to {together.max()} for {classes} classes"
            f"{f', without training images of {few}' if missing.size else ''}; number the classes from 0 on without "
            f"gaps, each with training images{' and one name' if class_names else ''}"
        )
        raise DataError(msg)
    pixels: Pixels = images[0] if len(images) == 1 else np.concatenate(images)  # type: ignore[assignment] # of one type
    return ImageData(pixels, together, classes, name, class_names=class_names, own_split=own_split, notes=notes)


def own_split_of(splits: Sequence[np.int8], counts: Sequence[int]) -> NDArray[np.int8] | None:
    """Split of every image, where several splits of so many images follow each other; None where there is one."""
    return np.repeat(np.array(splits, np.int8), counts) if len(splits) > 1 else None


def as_images(array: ArrayLike, where: str) -> Pixels:
    """An array of images, shape `(n_images, channels, height, width)`, uint8 or float32.

    Args:
        array: Shape `(n, h, w)`, `(n, h, w, c)` or `(n, c, h, w)`; the axis shorter than both others holds channels.
        where: What it is called, for messages.

    Raises:
        DataError: Another shape, numbers that are none, or whole ones beyond 0 to 255.
    """
    images = _as_array(array, where)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not images.size:
        msg = f"{where} has shape {images.shape}; give (images, height, width) or (images, channels, height, width)"
        raise DataError(msg)
    _, first, middle, last = images.shape
    if last < min(first, middle):
        images = images.transpose(0, 3, 1, 2)
    elif first >= min(middle, last) and first != 1:
        msg = (
            f"{where} has shape {images.shape}, where no axis stands out as that of the channels; give (images, "
            "channels, height, width) with fewer channels than rows and columns"
        )
        raise DataError(msg)
    return np.require(_narrowed(images, where), requirements="C")


def _as_array(values: ArrayLike, where: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of a tensor on a GPU
        msg = f"{where} is no array ({error}); give one, such as numpy.stack makes of several"
        raise DataError(msg) from None


def _narrowed(images: NDArray[Any], where: str) -> Pixels:
    """Numbers as uint8 where they are whole, else as float32.

    Raises:
        DataError: They cannot be.
    """
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind == "f":
        narrowed = images.astype(np.float32)
        if not np.isfinite(narrowed).all():
            msg = f"{where} has numbers that are not finite; replace them or leave those images out"
            raise DataError(msg)
        return narrowed
    if images.dtype.kind in "iu" and images.min() >= 0 and images.max() <= 255:
        return images.astype(np.uint8)
    whole = images.dtype.kind in "iu"
    came = f"whole numbers from {images.min()} to {images.max()}" if whole else f"values of type {images.dtype}"
    msg = f"{where} holds {came}; give whole numbers from 0 to 255, or floats"
    raise DataError(msg)


def as_labels(labels: ArrayLike, count: int, where: str) -> NDArray[np.int64]:
    """Labels of images, shape `(n_images,)`.

    Args:
        labels: Shape `(n_images,)` or `(n_images, 1)`.
        count: How many images there are.
        where: What they are called, for messages.

    Raises:
        DataError: Another shape, or no whole numbers.
    """
    array = _as_array(labels, where)
    if array.shape not in ((count,), (count, 1)):
        msg = f"{where} has shape {array.shape} for {count} images; give one label each, {(count,)}"
        raise DataError(msg)
    if array.dtype.kind not in "iu":
        msg = f"{where} is of type {array.dtype}; give whole numbers, the classes numbered from 0"
        raise DataError(msg)
    return array.reshape(-1).astype(np.int64)


def _names(classes: ArrayLike, where: str) -> tuple[str, ...]:
    """Names of classes as text.

    Raises:
        DataError: They are none.
    """
    array = _as_array(classes, f"{where}: classes")
    if array.size and (array.ndim != 1 or array.dtype.kind not in "US"):
        msg = f"{where}: classes has shape {array.shape} and type {array.dtype}; give a list of names, one a class"
        raise DataError(msg)
    return tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.tolist())


def resized(images: Pixels, resolution: int | None) -> Pixels:
    """Images at a resolution: shorter side resized, antialiased, and the middle cut out."""
    count, channels, height, width = images.shape
    if resolution is None or (height, width) == (resolution, resolution):
        return images
    new = np.empty((count, channels, resolution, resolution), images.dtype)
    for index in np.ndindex(count, channels):
        plane = Image.fromarray(images[index])  # mode L of uint8, F of float32
        new[index] = ImageOps.fit(plane, (resolution, resolution), Image.Resampling.BILINEAR)
    return new
