"""What lies in a folder of images: which files, of which class and split. Looks at names and sizes, opens nothing.

The layout is torchvision's ImageFolder: a folder for each class, images anywhere below it; with folders `train`, `val`
and `test` above the classes, or without.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from search.data import ANY, TEST, VALIDATION
from search.errors import DataError
from search.sources.imagefile import EXTENSIONS

_SPLITS = {
    "train": ANY,
    "training": ANY,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


_FOLDERS_COMPARED = 4


@dataclass(frozen=True)
class ImageFile:
    """A file that is an image by its name.

    Attributes:
        path: Below the folder of all images, with `/` between parts.
        class_folder: The part of it that is the folder of its class.
        state: Size, time of change and permissions, which another content hardly shares.
    """

    path: str
    class_folder: str
    state: tuple[int, int, int]


@dataclass(frozen=True)
class ClassFolder:
    """The folder of one class in one split.

    Attributes:
        name: The class.
        split: `data.ANY`, `VALIDATION` or `TEST`.
    """

    name: str
    split: int


@dataclass(frozen=True)
class Listing:
    """What lies in a folder of images.

    Attributes:
        files: Images in class folders: training first, then validation and test; by class, then by path.
        class_folders: By path, in the order of the files.
        has_splits: Whether there are split folders.
        unusable: Why a path is of no use, by path.
        ignored: Files that are no images by their names.
    """

    files: list[ImageFile] = field(default_factory=list)
    class_folders: dict[str, ClassFolder] = field(default_factory=dict)
    has_splits: bool = False
    unusable: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """The classes there are to train on, sorted."""
        return sorted({folder.name for folder in self.class_folders.values() if folder.split == ANY})


def list_images(root: Path) -> Listing:
    """What lies in a folder of images; hidden files and folders are passed over.

    Raises:
        DataError: There is no such folder, it cannot be read, or its folders are of no known layout.
    """
    try:
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not _is_hidden(entry.name))
    except OSError as error:
        msg = f"data.path {root} cannot be read as a folder ({error.strerror}); name one with a folder for each class"
        raise DataError(msg) from None
    splits = [name for name in folders if name.lower() in _SPLITS]
    others = [name for name in folders if name.lower() not in _SPLITS]
    trains = any(_SPLITS[name.lower()] == ANY for name in splits)
    if trains and len(splits) > 1 and others:
        msg = (
            f"{root} has split folders ({', '.join(splits)}) beside others ({', '.join(others[:5])}); move one kind "
            "elsewhere"
        )
        raise DataError(msg)
    if not others and not trains:
        came = f"{' and '.join(splits)} but no train" if splits else "no folder in it"
        msg = f"{root} has {came}; it needs a folder for each class, or train/ (val/, test/) with such folders"
        raise DataError(msg)
    _refuse_other_layouts(root, others)
    listing = Listing(has_splits=not others)
    if others:
        _list_classes(root, "", int(ANY), listing)
    else:
        _list_strays(root, "", listing)
        for name in sorted(splits, key=lambda name: (_SPLITS[name.lower()], name)):
            _list_classes(root, f"{name}/", int(_SPLITS[name.lower()]), listing)
    return listing


def _refuse_other_layouts(root: Path, folders: list[str]) -> None:
    """Refuse folders taken for classes that hold the same folders again, or the only one of which holds the classes.

    Raises:
        DataError: See above.
    """
    inside = [{path.name for path in (root / name).glob("[!.]*/")} for name in folders[:_FOLDERS_COMPARED]]
    direct = any(_is_image(path.name) for name in folders[:_FOLDERS_COMPARED] for path in (root / name).iterdir())
    if direct or not all(len(each) > 1 for each in inside):
        return
    if len(folders) == 1:
        msg = f"{root} has nothing but {folders[0]}/, which holds {len(inside[0])} folders; name {root / folders[0]}"
        raise DataError(msg)
    if len(folders) > 1 and all(each == inside[0] for each in inside):
        msg = (
            f"{root} has {', '.join(folders[:_FOLDERS_COMPARED])}, which hold the same folders: "
            f"{', '.join(sorted(inside[0])[:5])}; if these are the classes, call the folders above them train, val "
            "and test"
        )
        raise DataError(msg)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122 # a Path for each of 60,000 takes a second


def _list_classes(root: Path, prefix: str, split: int, listing: Listing) -> None:
    """Add the class folders of a split, and images beside them, which belong to no class."""
    for name in _list_strays(root, prefix, listing):
        folder = f"{prefix}{name}"
        listing.class_folders[folder] = ClassFolder(name, split)
        for path, state in _walk(root, folder, frozenset(), listing):
            listing.files.append(ImageFile(path, folder, state))


def _list_strays(root: Path, prefix: str, listing: Listing) -> list[str]:
    """Note the files of a folder whose files belong to no class; the names of its folders, sorted."""
    for path, _ in _files(prefix, entries := _entries(root, prefix, listing), listing):
        listing.unusable[path] = "an image outside the folders of the classes"
    return [entry.name for entry in entries if entry.is_dir()]


def _walk(
    root: Path, folder: str, above: frozenset[tuple[int, int]], listing: Listing
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Images anywhere below a folder with their states, by path; links that lead back up are not followed."""
    try:
        status = (root / folder).stat()
    except OSError as error:
        listing.unusable[f"{folder}/"] = f"cannot be read ({error.strerror})"
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    entries = _entries(root, f"{folder}/", listing)
    yield from _files(f"{folder}/", entries, listing)
    for entry in entries:
        if entry.is_dir():
            yield from _walk(root, f"{folder}/{entry.name}", above | {here}, listing)


def _entries(root: Path, prefix: str, listing: Listing) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name; a folder that cannot be read is noted."""
    try:
        with os.scandir(root / prefix) as entries:
            return sorted((each for each in entries if not _is_hidden(each.name)), key=lambda each: each.name)
    except OSError as error:
        listing.unusable[prefix] = f"cannot be read ({error.strerror})"
        return []


def _files(
    prefix: str, entries: list[os.DirEntry[str]], listing: Listing
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Images among the entries of a folder, with their states."""
    for entry in entries:
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            continue
        if not _is_image(path):
            listing.ignored.append(path)
            continue
        try:
            status = entry.stat()
        except OSError as error:
            listing.unusable[path] = f"cannot be read ({error.strerror})"
            continue
        if not stat.S_ISREG(status.st_mode):
            listing.unusable[path] = "no ordinary file"
            continue
        yield path, (status.st_size, status.st_mtime_ns, status.st_mode)
