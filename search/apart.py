"""Calls made in another process, so that what they load goes when it ends.

Torch takes seconds to import, and 300 MiB that no two processes share unless one forked the other. Who coordinates a
study for days needs it for a few answers at the start.
"""

import importlib
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

from search.lifeline import end_with_parent

P = ParamSpec("P")
R = TypeVar("R")


class Calls(Protocol):
    """Something that calls functions, here or elsewhere."""

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns or raises."""


def here(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns or raises, called by this process."""
    return function(*args, **kwargs)


class Apart:
    """A process that imports torch while this one does other things, and makes calls for it; a context manager."""

    def __init__(self) -> None:
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)

    def __enter__(self) -> Self:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which is this process's business alone
        self._process.submit(importlib.import_module, "search.metering")
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.shutdown(cancel_futures=True)

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns or raises; it, its arguments and that must be such as can be pickled."""
        return self._process.submit(function, *args, **kwargs).result()
