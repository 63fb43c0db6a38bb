"""Images decoded once: kept as a file in the user's cache folder, from where every process maps them into memory.

Knows nothing of images beyond their array; what decides them is the key its callers give.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.sources.reading import Allocate

Made = tuple[NDArray[np.uint8], dict[str, Any]]
_LAYOUT = 1
"""Counts up when what is kept, or how images are brought to it, changes."""


@dataclass(frozen=True)
class Kept:
    """Images and what is known of them.

    Attributes:
        images: Shape `(n_images, channels, height, width)`.
        facts: Plain values, as JSON gives them back.
        unkept: Why they could not be kept; None where they are.
    """

    images: NDArray[np.uint8]
    facts: dict[str, Any]
    unkept: str | None = None


def folder() -> Path:
    """Where images are kept: below `$XDG_CACHE_HOME`, else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "filter-search" / "images"


def keep(origin: str, content: str, make: Callable[[Allocate], Made | None]) -> Kept | None:
    """Images made once and found again.

    Several processes may ask at once: each makes them, the last to finish is kept. Where the cache folder cannot be
    written, they stay in memory.

    Args:
        origin: What names the images, such as a folder and a resolution; what was kept of it before is given up once
            its content is another.
        content: What decides them besides, such as names, sizes and times of files.
        make: Makes them in the room it is given, and says what is known of them; None where it found reasons not to.
    """
    first, second = (hashlib.sha256(f"{_LAYOUT}\0{text}".encode()).hexdigest()[:24] for text in (origin, content))
    path = folder() / f"{first}-{second}.npy"
    if found := _read(path):
        return found
    room = _Room(path.parent)
    try:
        made = make(room.allocate)
        if made is None:
            return None
        images, facts = made
        if room.file is None:
            return Kept(images, facts, room.reason)
        try:
            room.file.replace(path)
            _write_facts(path.with_suffix(".json"), facts)
        except OSError as error:
            return Kept(images, facts, _reason(path.parent, error))
    finally:
        room.give_up()
    for old in path.parent.glob(f"{first}-*"):
        if old.stem != path.stem:
            old.unlink(missing_ok=True)
    return _read(path) or Kept(images, facts)


class _Room:
    """Room for images in a file of the cache folder, or in memory where there can be none.

    Args:
        where: The cache folder.
    """

    def __init__(self, where: Path) -> None:
        self._where = where
        self.file: Path | None = None
        """The file, to be renamed once it is full."""
        self.reason: str | None = None
        """Why there is no file."""

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `reading.Allocate`; what was allocated before is given up."""
        self.give_up()
        if 0 in shape:  # which cannot be mapped
            return np.empty(shape, np.uint8)
        try:
            self._where.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._where, prefix=".", suffix=".tmp")
            self.file = Path(name)
            os.close(descriptor)
            room = np.lib.format.open_memmap(name, mode="w+", dtype=np.uint8, shape=shape)
            if hasattr(os, "posix_fallocate"):  # a disk that fills up while mapped memory is written ends the process
                with self.file.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, self.file.stat().st_size)
        except OSError as error:
            self.give_up()
            self.reason = _reason(self._where, error)
            return np.empty(shape, np.uint8)
        return room

    def give_up(self) -> None:
        """Remove the file, unless it was renamed."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)
            self.file = None


def _reason(where: Path, error: OSError) -> str:
    return (
        f"the cache folder {where} cannot be written ({error.strerror}), so every process reads all images anew; set "
        "XDG_CACHE_HOME to a writable folder"
    )


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write what is known of the images, whole; its file says that the images are complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(path)


def _read(path: Path) -> Kept | None:
    """What is kept; None where nothing is, or it is damaged."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        images = np.lib.format.open_memmap(path, mode="c")  # private to this process; torch wants to be able to write
    except (OSError, ValueError):
        return None
    return Kept(np.asarray(images), facts)
