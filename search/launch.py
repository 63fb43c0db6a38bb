"""Local worker processes: started, watched, drained, never left behind.

Workers inherit the study's lock. They end at once when the template that forked them ends, and it when its coordinator
does, so a killed coordinator leaves nothing that trains on.
"""

import io
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from optuna.trial import TrialState

from search.config import StudyConfig
from search.errors import FilterSearchError, StorageError
from search.lifeline import AFTER_FAILURE, MESSAGE, Event
from search.study import PURPOSES, Storage, supervisor_of

POLL_SECONDS = 0.1
"""How often a coordinator asks whether it is to stop."""

_MOST_DEATHS_AT_START = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ENVIRONMENT = {
    # A freed tensor's memory is kept for the next, in huge pages: training is 1.05 to 1.1 times as fast.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{each}" for each in ("hugetlb=1", f"mmap_threshold={2**30}", f"trim_threshold={2**30}")
    ),
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # to ask for a GPU leaves it untouched, so that workers can be forked
}
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


@dataclass
class _Worker:
    """A worker that was asked for.

    Attributes:
        log: What it says.
        pid: Its process, once it has started.
        status: How it ended, as `subprocess` has it; None until then.
        killed_for: Why it was killed, if it was.
    """

    log: IO[bytes]
    pid: int | None = None
    status: int | None = None
    killed_for: str | None = None

    def obituary(self) -> str:
        """How it ended and what it said last, of one that has ended; its log is closed."""
        assert self.status is not None
        with self.log:
            return f"{self.killed_for or how_it_ended(self.status)}\n{_tail(self.log)}"


class LocalWorkers:
    """Worker processes of one study on this machine, one thread each; a context manager.

    They are forked by a process that is started first, see `search.template`.

    Args:
        folder: The study folder.
        config: What the workers run from.
        count: How many.
        lock: Descriptor of the study's lock, which every worker inherits.
    """

    def __init__(self, folder: Path, config: StudyConfig, count: int, lock: int) -> None:
        self._folder = folder
        self._config = config
        self._lock = lock
        self._watch = JobWatch(config.compute.max_job_minutes)
        self._deaths_at_start = 0
        self._count = count
        self._workers: list[_Worker] = []
        self._template: _Template | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()

    def tend(self, storage: Storage) -> None:
        """Start the workers the first time; then release what dead ones were doing and start others in their place.

        Raises:
            FilterSearchError: Workers keep dying before they claim anything; with what they said last.
            StorageError: Likewise, because the storage refuses, as a full disk does.
        """
        if not self._workers:
            self._workers = [self._start(storage.supervisor) for _ in range(self._count)]
        self._hear()
        self.end_overdue(storage)
        ended = [slot for slot, worker in enumerate(self._workers) if worker.status is not None]
        if not ended:
            return
        worked = False
        for slot in ended:
            detail = self._workers[slot].obituary()
            if (pid := self._workers[slot].pid) is not None:
                _kill_group(pid)  # what it started itself
                own = f"{storage.supervisor}/{pid}"
                worked |= self._workers[slot].status == AFTER_FAILURE or storage.has_claimed(own.__eq__)
                for purpose in PURPOSES:
                    storage.release(purpose, own.__eq__, detail)
        # together, since one cause may end them all
        self._deaths_at_start = 0 if worked else self._deaths_at_start + 1
        if self._deaths_at_start >= _MOST_DEATHS_AT_START:
            msg = f"workers end before they start any work; the last one said:\n{detail}"
            refused = self._workers[slot].status == StorageError.exit_code
            raise StorageError(msg) if refused else FilterSearchError(msg)
        for slot in ended:
            self._workers[slot] = self._start(storage.supervisor)

    def end_overdue(self, storage: Storage) -> None:
        """End the workers that are at a job for longer than `compute.max_job_minutes`, with all they started."""
        for late, why in self._watch.overdue(storage):
            for worker in self._workers:
                if worker.pid == late and worker.status is None:
                    worker.killed_for = why
                    _kill_group(late)

    def drain(self) -> None:
        """Ask every worker to end after the job it carries out."""
        if self._template:
            self._template.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every worker at once."""
        self._hear()
        for worker in self._workers:
            if worker.pid is not None and worker.status is None:
                _kill_group(worker.pid)
        if self._template:
            self._template.process.kill()  # with which whatever it is forking ends

    def running(self) -> bool:
        """Whether any worker has not ended."""
        self._hear()
        return self._template is not None

    def wait(self) -> None:
        """Wait until every worker has ended."""
        self._hear(to_the_end=True)
        for worker in self._workers:
            worker.log.close()

    def _start(self, supervisor: str) -> _Worker:
        self._template = self._template or _Template.start(self._folder, self._config, self._lock, supervisor)
        worker = _Worker(tempfile.TemporaryFile())  # noqa: SIM115 # closed when the worker has been waited for
        self._template.ask(worker.log)
        return worker

    def _hear(self, to_the_end: bool = False) -> None:
        """Note what the template has said; once it and all workers have gone, none is left running."""
        while self._template and (message := self._template.next_message(wait=to_the_end)):
            event, pid, status = MESSAGE.unpack(message)
            known = None if event == Event.STARTED else pid
            worker = next(each for each in self._workers if each.pid == known and each.status is None)
            worker.pid, worker.status = pid, None if event == Event.STARTED else status
        if self._template and message == b"":
            status, said = self._template.end()
            self._template = None
            for worker in self._workers:
                if worker.status is None:
                    worker.log.close()
                    worker.log, worker.status = io.BytesIO(said), status


class JobWatch:
    """For how long a supervisor's workers have been at their jobs, by this process's own clock.

    Args:
        max_minutes: How long a job may take; None for as long as it likes.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self._max_minutes = max_minutes
        self._look_seconds = 0.0 if max_minutes is None else min(60 * max_minutes / 10, 5.0)
        self._looked = -math.inf
        self._since: dict[tuple[int, str, int], float] = {}

    def overdue(self, storage: Storage) -> list[tuple[int, str]]:
        """The processes of a supervisor's workers that are at a job for too long, and why that is; looks seldom."""
        now = time.monotonic()
        if self._max_minutes is None or now < self._looked + self._look_seconds:
            return []
        # so long without a look that this process was stopped, and its workers perhaps with it
        stopped = now > self._looked + max(60 * self._max_minutes / 2, _MOST_POLLS)
        before, late = {} if stopped else self._since, []
        self._looked, self._since = now, {}
        for job in (job for purpose in PURPOSES for job in storage.trials(purpose, TrialState.RUNNING)):
            key = job._trial_id, job.user_attrs["owner"], job.user_attrs["attempts"]
            self._since[key] = before.get(key, now)
            owner = job.user_attrs["owner"]
            if supervisor_of(owner) == storage.supervisor and now - self._since[key] > 60 * self._max_minutes:
                why = f"the job took longer than compute.max_job_minutes, {self._max_minutes:g}, and was ended"
                late.append((int(owner.rpartition("/")[2]), why))
        return late


@dataclass(frozen=True)
class _Template:
    """A process of `search.template`, as its coordinator sees it.

    Attributes:
        process: It.
        line: To it; ends when it and everything it forked have gone.
        log: What it says.
    """

    process: subprocess.Popen[bytes]
    line: socket.socket
    log: IO[bytes]

    @classmethod
    def start(cls, folder: Path, config: StudyConfig, lock: int, supervisor: str) -> Self:
        ours, theirs = socket.socketpair()
        log = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the last worker
        with theirs, tempfile.TemporaryFile() as given:
            given.write(config.model_dump_json().encode())
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "search.template", str(folder), supervisor, str(theirs.fileno())],
                stdin=given,
                stdout=log,
                stderr=log,
                pass_fds=(lock, theirs.fileno()),
                start_new_session=True,  # Ctrl-C in the terminal reaches the coordinator only, which then drains
                env=ENVIRONMENT | os.environ | ONE_THREAD,
            )
        return cls(process, ours, log)

    def ask(self, log: IO[bytes]) -> None:
        """For a worker that writes to this log."""
        with suppress(BrokenPipeError):  # it has gone, which is noticed where it is listened to
            socket.send_fds(self.line, [b"+"], [log.fileno()])

    def next_message(self, *, wait: bool) -> bytes | None:
        """What it said next, empty where all have gone; None where nothing is said yet and nobody waits."""
        if not wait and not select.select([self.line], [], [], 0)[0]:
            return None
        try:
            return self.line.recv(MESSAGE.size, socket.MSG_WAITALL)
        except ConnectionResetError:
            return b""

    def end(self) -> tuple[int, bytes]:
        """Its exit status and what it said last."""
        self.line.close()
        with self.log:
            return self.process.wait(), _tail(self.log).encode()


def _kill_group(process: int) -> None:
    """End a worker and all it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def how_it_ended(status: int, worker: str = "the worker") -> str:
    """In words; Popen gives a signal as its negative number, which may have no name, as those in real time have."""
    if status >= 0:
        return f"{worker} ended with exit status {status}"
    named = {each.value: each.name for each in signal.Signals}
    return f"{worker} died by signal {named.get(-status, -status)}"


def _tail(log: IO[bytes]) -> str:
    """What a worker said last; short enough for `Storage.release` to keep how it ended before that."""
    log.seek(0)
    return log.read()[-1800:].decode(errors="replace")
