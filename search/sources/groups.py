"""Which images belong together, read from a CSV file."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from search.data import ImageData
from search.errors import DataError
from search.sources.notes import such_as


def with_groups(data: ImageData, path: Path, names: Sequence[str]) -> ImageData:
    """The data with a group for every image.

    Args:
        data: All images.
        path: CSV file with columns `image` and `group`.
        names: What it calls the images, in their order.

    Raises:
        DataError: The file cannot be read, or leaves images out.
    """
    of_image = _read(path)
    missing = [name for name in names if name not in of_image]
    if missing:
        msg = (
            f"data.groups {path} names {len(names) - len(missing):,} of {len(names):,} images; it lacks "
            f"{such_as(len(missing), 'image', missing)}: give every image a group, its own if it is alone"
        )
        raise DataError(msg)
    _, groups = np.unique([of_image[name] for name in names], return_inverse=True)
    known = set(names)
    unknown = [name for name in of_image if name not in known]
    notes = data.notes
    if unknown:
        notes += (f"{such_as(len(unknown), 'image', unknown)} named in {path} and not among the images: ignored",)
    return replace(data, groups=groups.astype(np.int64), notes=notes)


def _read(path: Path) -> Mapping[str, str]:
    """Group of each image named.

    Raises:
        DataError: See `with_groups`.
    """
    groups: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"image", "group"} <= {*(rows.fieldnames or ())}:
                came = ", ".join(rows.fieldnames or ()) or "nothing"
                msg = f"data.groups {path} has columns {came}; it needs image and group, named in its first line"
                raise DataError(msg)
            for row in rows:
                image, group = row["image"], row["group"]
                if not group:
                    msg = f"data.groups {path}, line {rows.line_num}: no group for image {image!r}; give it one"
                    raise DataError(msg)
                if groups.setdefault(image, group) != group:
                    msg = (
                        f"data.groups {path}, line {rows.line_num}: image {image!r} is in group {group!r} here and in "
                        f"{groups[image]!r} before; an image has one group"
                    )
                    raise DataError(msg)
    except OSError as error:
        msg = f"data.groups {path} cannot be read ({error.strerror}); name a CSV file with columns image and group"
        raise DataError(msg) from None
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"data.groups {path} is no CSV file of UTF-8 text ({error}); save it as one"
        raise DataError(msg) from None
    return groups
