"""Supervisors as real processes: found, broken, started again until their study is done."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from faults.studies import Ground
from faults.watch import Watch

_LOOK_SECONDS = 0.1
_ENDS_WITH_US = ("setpriv", "--pdeathsig=KILL")  # whoever kills this process leaves nothing behind


class Supervisor:
    """One supervisor and all it started.

    Args:
        at: Where its study is.
        verb: `run` or `worker`.
        workers: How many it tends.
    """

    def __init__(self, at: Ground, verb: str, workers: int) -> None:
        self.verb = verb
        what = [str(at.config), "--out", str(at.folder), "--resume"] if verb == "run" else [str(at.folder)]
        command = [*_ENDS_WITH_US, sys.executable, "-m", "search", verb, *what, "--workers", str(workers)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 # closed in `said`
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            env=at.environment,
            cwd=at.imports,
            start_new_session=True,
        )
        self.may_end_with = {0}

    def template(self) -> int | None:
        """What forks its workers; None while there is none."""
        with suppress(OSError):
            for child in children(self.process.pid):
                if b"search.template" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        return None

    def workers(self) -> list[int]:
        """Its workers' processes."""
        template = self.template()
        return children(template) if template else []

    def family(self) -> list[int]:
        """It, what forks its workers, and these."""
        template = self.template()
        return [self.process.pid, *([template] if template else []), *self.workers()]

    def send(self, number: signal.Signals) -> None:
        """A signal to the supervisor alone; it may end by it."""
        self.may_end_with |= {-number, 128 + number}
        self.process.send_signal(number)

    def said(self) -> str:
        """What it said last, once it has ended."""
        with self._log:
            self._log.seek(0)
            return self._log.read()[-1500:].decode(errors="replace")


def children(process: int) -> list[int]:
    """The children of a process; none where it has gone."""
    try:
        tasks = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for task in tasks for child in task.split()]


class Fleet:
    """All supervisors of one study; a context manager that leaves no process behind.

    Args:
        at: Where the study is.
        verbs: One for each supervisor.
        workers: How many each tends.
        watch: Who notes what the storage acknowledges.
    """

    def __init__(self, at: Ground, verbs: Sequence[str], workers: int, watch: Watch) -> None:
        self._at, self._workers, self.watch = at, workers, watch
        self._unstarted = list(verbs)
        self.all: list[Supervisor] = []
        self.wrong: list[str] = []
        self.done = False
        self.tolerated: set[int] = set()
        self.held = False  # whether what has ended waits to be started again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.all:
            for process in each.family():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            each.process.wait()

    def tend(self) -> None:
        """Note what the storage says; start again what ended before the study was done."""
        self.watch.look()
        if not self.held:
            for verb in self._startable():
                self._unstarted.remove(verb)
                self.all.append(Supervisor(self._at, verb, self._workers))
        for each in list(self.all):
            if (code := each.process.poll()) is not None:
                self.all.remove(each)
                self._end(each, code)

    def _startable(self) -> list[str]:
        """A worker needs the configuration that a launch writes."""
        made = (self._at.folder / "config.yaml").exists()
        return [verb for verb in self._unstarted if verb == "run" or made]

    def _end(self, ended: Supervisor, code: int) -> None:
        said = ended.said()
        if code not in ended.may_end_with | self.tolerated or "Traceback" in said:
            self.wrong.append(f"`{ended.verb}` ended with {code}, saying: {said}")
        if code == 0 and ended.verb == "run":
            self.done, self._unstarted = True, []
        elif not self.done and code != 0:
            self._unstarted.append(ended.verb)

    def until(self, over: Callable[[], bool], seconds: float) -> bool:
        """Tend until something is over; False where it was not within these seconds."""
        deadline = time.monotonic() + seconds
        while not over():
            if time.monotonic() > deadline:
                return False
            self.tend()
            time.sleep(_LOOK_SECONDS)
        return True

    def wait(self, seconds: float) -> None:
        """Tend for so long."""
        self.until(lambda: False, seconds)

    def see_out(self, seconds: float) -> None:
        """Tend until the study is done and every supervisor has ended."""
        if not self.until(lambda: self.done and not self.all, seconds):
            self.wrong.append(f"the study was not done in {seconds:g} s; running: {[each.verb for each in self.all]}")

    def busy(self) -> list[Supervisor]:
        """Supervisors that have workers now."""
        return [each for each in self.all if each.process.poll() is None and each.workers()]

    def running(self) -> int:
        """How many trials are being carried out."""
        found = self.watch.look()
        return sum(trial.state.name == "RUNNING" for trials in found.values() for trial in trials)
