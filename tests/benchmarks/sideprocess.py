"""A side in a process of its own, and the memory that it and its children take."""

import importlib
import multiprocessing
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.work import Job, Trained, Work

_LOOKING = 0.01  # of a core: the kernel walks every page of a process to tell, which would slow what is measured
_STARTS = multiprocessing.get_context("spawn")


class SideProcess:
    """A process that trains as one side does; a context manager.

    Args:
        module: The side, a module of this package that has `train(work, jobs)`; imported there only, so that no side
            holds what another needs.
    """

    def __init__(self, module: str) -> None:
        self._pipe, theirs = _STARTS.Pipe()
        self._process = _STARTS.Process(target=_serve, args=(module, theirs))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()

    @property
    def pid(self) -> int:
        return self._process.pid

    def train(self, work: Work, jobs: Sequence[Job]) -> tuple[list[Trained], float]:
        """The jobs carried out, and the wall seconds they took in all.

        Raises:
            EOFError: The process has died; what killed it is on standard error.
        """
        began = time.perf_counter()
        self._pipe.send((work, list(jobs)))
        return self._pipe.recv(), time.perf_counter() - began


def _serve(module: str, pipe: Connection) -> None:
    train = importlib.import_module(f"benchmarks.{module}").train
    while True:
        try:
            work, jobs = pipe.recv()
        except EOFError:
            return
        pipe.send(train(work, jobs))


class PeakMemory:
    """The most memory that a process and its descendants held at once; a context manager, for Linux.

    Attributes:
        bytes: Sum of their proportional set sizes, in which a page counts once however many share it.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watch.join()

    def _sample(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            began = time.thread_time()
            self.bytes = max(self.bytes, sum(map(_proportional_bytes, _family(self._pid))))
            pause = (time.thread_time() - began) / _LOOKING


def _family(pid: int) -> list[int]:
    """A process and all its descendants; without those that end meanwhile."""
    found = [pid]
    for each in found:
        try:
            tasks = [path.read_text() for path in Path(f"/proc/{each}/task").glob("*/children")]
        except OSError:
            continue
        found += [int(child) for task in tasks for child in task.split()]
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    (kilobytes,) = (line.split()[1] for line in told.splitlines() if line.startswith("Pss:"))
    return 1024 * int(kilobytes)
