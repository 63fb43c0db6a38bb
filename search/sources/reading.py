"""Many images brought to one form: the same size, all grey or all colour, in one array.

Owns what that form is and the processes that decode. Where images lie, and what becomes of those that cannot be used,
is for others to say.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.errors import DataError
from search.sources.imagefile import Head, UnusableImageError

MIXED_RESOLUTION = 64
"""Height and width of images that come in several sizes, where the configuration names none."""
_CHUNK = 64
_FEWEST_FOR_PROCESSES = 512  # fewer are decoded before a second process has started

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]
"""Makes room for images; whoever owns it may have it lie in a file."""
Result = TypeVar("Result")
Task = Callable[["ImageReader", Sequence[int]], Result]
"""What is done to some images, by number; sent to other processes."""


class ImageReader(Protocol):
    """Where images come from, by number; sent to other processes."""

    def __len__(self) -> int:
        """How many images there are."""

    def head(self, index: int) -> Head:
        """What can be said of an image before its pixels are asked for.

        Raises:
            UnusableImageError: It cannot be used.
        """

    def pixels(self, index: int, resolution: int | None, grey: bool) -> NDArray[np.uint8]:
        """See `imagefile.read_pixels`.

        Raises:
            UnusableImageError: It cannot be used.
        """


@dataclass(frozen=True)
class Standardised:
    """Images in one form.

    Attributes:
        images: Shape `(n_usable, channels, height, width)`.
        usable: Numbers of the images that could be used, rising, shape `(n_usable,)`.
        heads: What each of them was like, in their order.
        digests: Equal for images with equal pixels in this form, in their order.
        problems: Why the others could not be used, by number.
    """

    images: NDArray[np.uint8]
    usable: NDArray[np.int64]
    heads: list[Head]
    digests: list[bytes]
    problems: dict[int, str]


def standardise(reader: ImageReader, resolution: int | None, allocate: Allocate, *, skip: bool) -> Standardised:
    """All images that can be used, in one form.

    Grey where all are grey, else colour. With a resolution, or where sizes differ, square; see `imagefile.pixels_of`.
    Images that cannot be used have no say in the form.

    Args:
        reader: Gives the images.
        resolution: Height and width; None for their own size, or `MIXED_RESOLUTION` where they have several.
        allocate: Makes room for the result; called again where decoding finds images that cannot be used.
        skip: Whether to go on without them; else the result then has no images.

    Raises:
        DataError: A decoding process died.
    """
    problems: dict[int, str] = {}
    heads: dict[int, Head] = {}
    with _executor(reader) as executor:
        for found, bad in _mapped(executor, reader, _read_heads, range(len(reader))):
            heads |= found
            problems |= bad
        while True:
            usable = [index for index in heads if index not in problems]
            form = _Form.of([heads[index] for index in usable], resolution)
            images = allocate((len(usable), *form.shape)) if skip or not problems else None
            digests: list[bytes] = []
            done, known = 0, len(problems)
            for pixels, some, bad in _mapped(executor, reader, form, usable):
                problems |= bad
                digests += some
                if images is not None:
                    images[done : done + len(pixels)] = pixels
                    done += len(pixels)
            if images is not None and len(problems) == known:
                kept = [heads[index] for index in usable]
                return Standardised(images, np.array(usable, np.int64), kept, digests, problems)
            if not skip:
                return Standardised(np.empty((0, *form.shape), np.uint8), np.empty(0, np.int64), [], [], problems)


@dataclass(frozen=True)
class _Form:
    """What images are brought to; called with some of them, it does so.

    Attributes:
        resolution: See `imagefile.pixels_of`.
        shape: Channels, height and width.
    """

    resolution: int | None
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, heads: Sequence[Head], resolution: int | None) -> "_Form":
        """The form of images that are like this."""
        channels = 1 if all(head.grey for head in heads) else 3
        sizes = {head.size for head in heads}
        if resolution is None and len(sizes) == 1:
            return cls(None, (channels, *sizes.pop()))
        side = resolution or MIXED_RESOLUTION
        return cls(side, (channels, side, side))

    def __call__(
        self, reader: ImageReader, indices: Sequence[int]
    ) -> tuple[NDArray[np.uint8], list[bytes], dict[int, str]]:
        """Pixels of those that can be used, their digests, and why the others cannot."""
        found: list[NDArray[np.uint8]] = []
        problems: dict[int, str] = {}
        for index in indices:
            try:
                pixels = reader.pixels(index, self.resolution, self.shape[0] == 1)
                if pixels.shape != self.shape:
                    height, width = pixels.shape[1:]
                    msg = f"damaged ({height}x{width} pixels, where its head says {self.shape[1]}x{self.shape[2]})"
                    raise UnusableImageError(msg)
                found.append(pixels)
            except UnusableImageError as error:
                problems[index] = str(error)
        digests = [blake2b(pixels.data, digest_size=16).digest() for pixels in found]
        return np.array(found, np.uint8).reshape(-1, *self.shape), digests, problems


def _read_heads(reader: ImageReader, indices: Sequence[int]) -> tuple[dict[int, Head], dict[int, str]]:
    heads: dict[int, Head] = {}
    problems: dict[int, str] = {}
    for index in indices:
        try:
            heads[index] = reader.head(index)
        except UnusableImageError as error:
            problems[index] = str(error)
    return heads, problems


@contextmanager
def _executor(reader: ImageReader) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that have the reader, a process for each usable core; None where this one is as quick.

    Raises:
        DataError: One of them died.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(reader) < _FEWEST_FOR_PROCESSES or cores == 1:
        yield None
        return
    # Spawned: what is forked beside the threads of torch may hang.
    context = multiprocessing.get_context("spawn")
    with _safe_path(), ProcessPoolExecutor(cores, context, _prepare, (reader,)) as executor:
        try:
            yield executor
        except BrokenProcessPool:
            msg = "a process that decodes images died, perhaps for want of memory; free some, then try again"
            raise DataError(msg) from None
        finally:
            executor.shutdown(cancel_futures=True)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes that start in here import nothing from the current folder, which may be a stranger's."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _mapped(
    executor: ProcessPoolExecutor | None, reader: ImageReader, task: Task[Result], indices: Sequence[int]
) -> Iterable[Result]:
    """The task's results for all images, some at a time, in their order."""
    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    if executor is None:
        return (task(reader, chunk) for chunk in chunks)
    return executor.map(_carry_out, repeat(task), chunks)


_readers: list[ImageReader] = []
"""In a decoding process, the reader it was started with."""


def _prepare(reader: ImageReader) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the business of the process that asked
    _readers.append(reader)


def _carry_out(task: Task[Result], indices: Sequence[int]) -> Result:
    return task(_readers[0], indices)
