"""Images in folders: inspected, brought to one form and kept for the next process.

Owns what happens to files that cannot be used. Which files there are is the business of `listing`, pixels that of
`reading`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data import TEST, VALIDATION, ImageData
from search.dataconfig import DataConfig
from search.errors import DataError
from search.sources.cache import keep
from search.sources.imagefile import Head, read_head, read_pixels
from search.sources.listing import Listing, list_images
from search.sources.notes import notes_on, such_as
from search.sources.reading import Allocate, standardise

_MOST_LINES = 50


@dataclass(frozen=True)
class _FileReader:
    """Images in files; see `reading.ImageReader`."""

    root: Path
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def head(self, index: int) -> Head:
        return read_head(self.root / self.paths[index])

    def pixels(self, index: int, resolution: int | None, grey: bool) -> NDArray[np.uint8]:
        return read_pixels(self.root / self.paths[index], resolution, grey=grey)


def load_folder(config: DataConfig) -> tuple[ImageData, list[str]]:
    """The images below `data.path`, and the path of each below it.

    Training images come first, then validation and test; by class, then by path.

    Raises:
        DataError: No folder of a known layout, classes without images, or files that cannot be used while
            `data.on_bad` is `error`; all of them are named.
    """
    root = Path(str(config.path)).expanduser()
    listing = list_images(root)
    skip = config.on_bad == "skip"
    bad: dict[int, str] = {}
    labels, own_split = _labels(listing)
    only_validation = own_split is not None and VALIDATION in own_split and TEST not in own_split
    if own_split is not None and only_validation:
        own_split[own_split == VALIDATION] = TEST
    paths = [file.path for file in listing.files]

    def make(allocate: Allocate) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        done = standardise(_FileReader(root, tuple(paths)), config.resolution, allocate, skip=skip)
        bad.update(done.problems)
        if bad and not skip:
            return None
        usable = done.usable
        names, splits = [shown(paths[i]) for i in usable], None if own_split is None else own_split[usable]
        notes = notes_on(done.heads, done.digests, names, labels[usable], splits)
        return done.images, {"notes": notes, "bad": [[index, reason] for index, reason in bad.items()]}

    origin = json.dumps([str(root.resolve()), config.resolution])
    kept = keep(origin, json.dumps([[file.path, *file.state] for file in listing.files]), make)
    if kept:
        bad = dict(kept.facts["bad"])
    usable = np.array([index for index in range(len(paths)) if index not in bad], np.int64)
    problems = listing.unusable | {paths[index]: reason for index, reason in bad.items()}
    _refuse(root, problems, _contradictions(listing, usable), skip=skip)
    assert kept is not None  # else there were problems
    data = ImageData(
        kept.images,
        labels[usable],
        len(listing.class_names),
        root.resolve().name or "images",
        class_names=tuple(map(shown, listing.class_names)),
        own_split=None if own_split is None else own_split[usable],
        notes=(
            *_left_out(listing, problems),
            *(["no test folder: the validation folder is the test split, and validation is drawn"] * only_validation),
            *kept.facts["notes"],
            *filter(None, [kept.unkept]),
        ),
    )
    return data, [paths[index] for index in usable]


def shown(path: str) -> str:
    """A path as it can be written down: names of files need not be valid text."""
    return path.encode("utf-8", "backslashreplace").decode()


def _labels(listing: Listing) -> tuple[NDArray[np.int64], NDArray[np.int8] | None]:
    """Class and split of each file; -1 for a class that has no folder to train on."""
    numbers = {name: number for number, name in enumerate(listing.class_names)}
    folders = [listing.class_folders[file.class_folder] for file in listing.files]
    labels = np.array([numbers.get(folder.name, -1) for folder in folders], np.int64)
    return labels, np.array([folder.split for folder in folders], np.int8) if listing.has_splits else None


def _contradictions(listing: Listing, usable: NDArray[np.int64]) -> dict[str, str]:
    """What leaving files out does not mend, by path."""
    found: dict[str, str] = {}
    filled = {listing.files[index].class_folder for index in usable}
    for path, folder in listing.class_folders.items():
        if path not in filled:
            found[f"{path}/"] = "a class without a usable image; add images or remove the folder"
        if folder.name not in listing.class_names:
            found[f"{path}/"] = "a class the training images lack; add it there or remove the folder"
    if len(listing.class_names) < 2:
        found["./"] = f"{len(listing.class_names) or 'no'} class to train on; there must be two or more"
    return found


def _refuse(root: Path, unusable: dict[str, str], contradictions: dict[str, str], *, skip: bool) -> None:
    """Name everything that stands in the way.

    Raises:
        DataError: Something does.
    """
    problems = contradictions | ({} if skip else unusable)
    if not problems:
        return
    lines = [f"{shown(path)}: {reason}" for path, reason in sorted(problems.items())]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES:,} more"]
    advice = (
        "mend or remove them, or leave them out by data.on_bad: skip" if len(problems) > len(contradictions) else ""
    )
    counted = f"{len(problems):,} thing{'s' * (len(problems) > 1)} that cannot be used"
    msg = "\n".join([f"{root} has {counted}:", *(f"  {line}" for line in lines), *filter(None, [advice])])
    raise DataError(msg)


def _left_out(listing: Listing, unusable: dict[str, str]) -> Iterable[str]:
    """Notes on what is not among the images."""
    if unusable:
        reasons = [f"{shown(path)}: {reason}" for path, reason in sorted(unusable.items())]
        yield f"{such_as(len(reasons), 'file', reasons)} that cannot be used: left out"
    if listing.ignored:
        names = [*map(shown, listing.ignored)]
        yield f"{such_as(len(names), 'file', names)} not named like an image: ignored"
