"""Calls made in another process, so that what they load goes when it ends.

Torch takes seconds to import, and 300 MiB that no two processes share unless one forked the other. Who coordinates a
study for days needs it for a few answers at the start.
"""

import importlib
import multiprocessing
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from search.errors import FilterSearchError
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

    def __enter__(self) -> Self:
        self._line, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "search.apart", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is this process's business
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._line.close()

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns or raises.

        Args:
            function: One that a module has; it runs where modules of the current folder cannot be imported unawares.
            *args: Plain values and the package's own.
            **kwargs: Likewise.

        Raises:
            FilterSearchError: The process ended before it had an answer.
        """
        try:
            self._line.send((function, args, kwargs))
            returned, answer = self._line.recv()
        except (EOFError, ConnectionError):
            msg = (
                f"the process that calls {function.__name__} ended with status {self._process.wait()} before it was "
                "done; free memory if that lacks, or mend a function of your own that it called, then try again"
            )
            raise FilterSearchError(msg) from None
        if not returned:
            raise answer
        found: R = answer
        return found


def _serve(line: "Connection[Any, Any]") -> None:
    """Make calls until nobody asks any more."""
    importlib.import_module("search.metering")
    while True:
        try:
            function, args, kwargs = line.recv()
        except EOFError:
            return
        try:
            answer = True, function(*args, **kwargs)
        except Exception as error:  # whatever it is, it is for who asked
            error.add_note("".join(traceback.format_exception(error)))
            answer = False, error
        line.send(answer)


if __name__ == "__main__":
    end_with_parent()
    _serve(Connection(int(sys.argv[1])))
