"""Local worker processes: started, watched, drained, never left behind.

A worker inherits the study's lock and a pipe from its coordinator; when the pipe closes the worker ends at once, so a
killed coordinator leaves nothing that trains on.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from search.errors import FilterSearchError
from search.study import PURPOSES, Storage

POLL_SECONDS = 0.1
"""How often a coordinator asks whether it is to stop."""

_MOST_DEATHS_AT_START = 3
_LOOKING = 0.02  # the most of a core that looking at the study may take, however many trials there are
_MOST_POLLS = 20  # between two looks, which is how long the end of the last trial may go unseen


class Pace:
    """When a coordinator looks at its study again: seldom enough to leave the processor to the workers."""

    def __init__(self) -> None:
        self._spent = 0.0

    @contextmanager
    def looking(self) -> Iterator[None]:
        """What is done in here is looking."""
        began = time.process_time()
        try:
            yield
        finally:
            self._spent += time.process_time() - began

    def polls(self) -> int:
        """How many times `POLL_SECONDS` to wait for what was spent on looking since this was asked last."""
        spent, self._spent = self._spent, 0.0
        return min(max(1, math.ceil(spent / _LOOKING / POLL_SECONDS)), _MOST_POLLS)


class LocalWorkers:
    """Worker processes of one study on this machine, one thread each; a context manager.

    Args:
        folder: The study folder.
        count: How many.
        lock: Descriptor of the study's lock, which every worker inherits.
    """

    def __init__(self, folder: Path, count: int, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._deaths_at_start = 0
        self._count = count
        self._workers: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()

    def _start(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        log = tempfile.TemporaryFile()  # noqa: SIM115 # closed when the worker has been waited for
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "search", "worker", str(self._folder), "--leashed"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(self._lock,),
            start_new_session=True,  # Ctrl-C in the terminal reaches the coordinator only, which then drains
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        return process, log

    def tend(self, storage: Storage) -> None:
        """Start the workers the first time; then release what dead ones were doing and start others in their place.

        Raises:
            FilterSearchError: Workers keep dying before they claim anything; with what they said last.
        """
        if not self._workers:
            self._workers = [self._start() for _ in range(self._count)]
        for slot, (process, log) in enumerate(self._workers):
            if process.poll() is None:
                continue
            detail = f"{_how_it_ended(process.returncode)}\n{_tail(log)}"
            released = sum(storage.release(purpose, process.pid, detail) for purpose in PURPOSES)
            self._deaths_at_start = 0 if released else self._deaths_at_start + 1
            if self._deaths_at_start >= _MOST_DEATHS_AT_START:
                msg = f"workers end before they start any work; the last one said:\n{detail}"
                raise FilterSearchError(msg)
            log.close()
            self._workers[slot] = self._start()

    def drain(self) -> None:
        """Ask every worker to end after the job it carries out."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every worker at once."""
        self._signal(signal.SIGKILL)

    def running(self) -> int:
        """How many workers have not ended."""
        return sum(process.poll() is None for process, _ in self._workers)

    def wait(self) -> None:
        """Wait until every worker has ended."""
        for process, log in self._workers:
            process.wait()
            if process.stdin:
                process.stdin.close()
            log.close()

    def _signal(self, number: int) -> None:
        for process, _ in self._workers:
            if process.poll() is None:
                process.send_signal(number)


def end_with_coordinator() -> None:
    """In a worker: end this process when standard input closes, which is when its coordinator has gone."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _how_it_ended(status: int) -> str:
    """In words; Popen gives a signal as its negative number, which may have no name, as those in real time have."""
    if status >= 0:
        return f"the worker ended with exit status {status}"
    named = {each.value: each.name for each in signal.Signals}
    return f"the worker died by signal {named.get(-status, -status)}"


def _tail(log: IO[bytes]) -> str:
    """What a worker said last; short enough for `Storage.release` to keep how it ended before that."""
    log.seek(0)
    return log.read()[-1800:].decode(errors="replace")
