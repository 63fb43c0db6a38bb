"""Coordination: what is missing is queued, workers are tended, and all of it stops cleanly.

Any number of processes may coordinate one study at once; none is special, and each sees what the others did.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState

from search import queues, study
from search.cases import Case, store_cases, stored_cases
from search.config import ComputeConfig
from search.confirm import choose_cases, enqueue_next, fit_surrogate
from search.errors import InterruptedStudyError, NoTrialError
from search.launch import POLL_SECONDS, Pace
from search.leases import Leases
from search.memorylimit import memory_limit
from search.plan import StudyPlan
from search.progress import mark_done
from search.soundness import probes
from search.spending import spent_seconds
from search.study import Storage, supervisor_of

_CRASHES_WITHOUT_SUCCESS, _CRASHES_IN_A_ROW = 3, 5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last as batch systems send it before a time limit


class Stop:
    """What asks a launch to stop early: a signal or its deadline.

    Args:
        max_wall_hours: When the time is up, from now; None for never.
        max_gpu_hours: How much all runs of the study may take together; None for as much as they like.
    """

    def __init__(self, max_wall_hours: float | None, max_gpu_hours: float | None = None) -> None:
        self.signal: int | None = None
        self.signals = 0
        self.heeded = False
        self.over: str | None = None
        self._deadline = math.inf if max_wall_hours is None else time.monotonic() + max_wall_hours * 3600
        self._max_seconds = math.inf if max_gpu_hours is None else max_gpu_hours * 3600
        self._spent = 0.0

    def count(self, storage: Storage) -> None:
        """Note what the study's runs have taken so far."""
        if self._max_seconds < math.inf:
            self._spent = spent_seconds(storage)

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Note a signal and say so; after a second one the next ends the process as it would any other."""
        self.signal = signal.SIGTERM if number == signal.SIGUSR1 else number
        self.signals += 1
        if self.signals == 1:
            sys.stderr.write("\nfilter-search: stopping after the jobs at hand; once more ends them at once\n")
        else:
            signal.signal(number, signal.SIG_DFL)

    def end(self) -> None:
        """Turn a signal that came into the error the command ends with.

        Raises:
            InterruptedStudyError: One came.
        """
        if self.signal is not None:
            msg = "stopped; everything finished is kept, the same command with --resume goes on"
            raise InterruptedStudyError(msg, self.signal)

    def due(self) -> bool:
        """Whether to stop now; noted as heeded."""
        if time.monotonic() > self._deadline:
            self.over = "max_wall_hours"
        elif self._spent >= self._max_seconds:
            self.over = "max_gpu_hours"
        self.heeded = self.signal is not None or self.over is not None
        return self.heeded


@contextmanager
def stopping(compute: ComputeConfig) -> Iterator[Stop]:
    """In here signals are caught; in a thread that is not the main one they cannot be."""
    stop = Stop(compute.max_wall_hours, compute.max_gpu_hours)
    own = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop.catch) for number in own}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Workers(Protocol):
    """Whoever carries out queued jobs."""

    def tend(self, storage: Storage) -> None:
        """Look after them; called a few times a second while jobs are queued."""

    def end_overdue(self, storage: Storage) -> None:
        """End those that are at a job for too long; called while they are waited for."""

    def drain(self) -> None:
        """Ask them to end after the job at hand."""

    def kill(self) -> None:
        """End them at once."""

    def running(self) -> bool:
        """Whether any has not ended."""


@dataclass(frozen=True)
class Launch:
    """One launch of a study: its queue, its workers, what may stop it, and its watch over other launches."""

    plan: StudyPlan
    storage: Storage
    workers: Workers
    stop: Stop
    show: Callable[[Storage], None]
    leases: Leases | None = None
    pace: Pace = field(default_factory=Pace)

    def carry_out(self) -> None:
        """Search, confirm and probe, then let the workers end; whatever stops it, nothing is left running."""
        try:
            if self.search() and self.confirm() and self.probe():
                mark_done(self.storage)
        finally:
            self.drain()

    def search(self) -> bool:
        """Carry the search out; False when it was stopped.

        Raises:
            NoTrialError: It ended, or will end, without a single complete trial, or one after the other fails.
        """
        while not self.stop.due():
            with self.pace.looking():
                trials = queues.jobs(self.storage, "search")
            over = not any(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in trials)
            _refuse_hopeless(trials, over)
            if over:
                return True
            self._tend()
        return False

    def confirm(self) -> bool:
        """Carry the confirmation out until every case is closed; False when it was stopped."""
        cases = stored_cases(self.storage)
        if cases is None:
            surrogate = fit_surrogate(self.storage, self.plan.config.seed)
            store_cases(self.storage, choose_cases(self.plan, surrogate, memory_limit(*self.storage.studies)))
            cases = stored_cases(self.storage) or []  # another launch may have been faster
        return self.confirm_all(cases)

    def confirm_all(self, cases: Sequence[Case]) -> bool:
        """Carry out what these cases need; False when it was stopped."""
        while not self.stop.due():
            idle = not self._busy("confirm") and not enqueue_next(self.storage, cases, self.plan)
            if idle and not self._busy("confirm"):  # again: another launch may have queued more in between
                return True
            self._tend()
        return False

    def probe(self) -> bool:
        """Carry out the probes that ask how far the verdicts can be trusted; False when it was stopped."""
        queues.enqueue_probes(self.storage, probes(self.plan, self.storage))
        while self._busy("probe"):
            if self.stop.due():
                return False
            self._tend()
        return True

    def drain(self) -> None:
        """Let the workers finish what they do; a second signal ends them, and their trials return to the queue."""
        self.workers.drain()
        while self.workers.running():
            if self.stop.signals > 1:
                self.workers.kill()
            self.workers.end_overdue(self.storage)
            time.sleep(POLL_SECONDS)
        for purpose in study.PURPOSES:
            self.storage.release(
                purpose, lambda owner: supervisor_of(owner) == self.storage.supervisor, "interrupted", counts=False
            )

    def _busy(self, purpose: study.Purpose) -> bool:
        with self.pace.looking():
            return bool(self.storage.trials(purpose, TrialState.WAITING, TrialState.RUNNING))

    def _tend(self) -> None:
        """Look after the workers, then wait until it is time to look again."""
        self.workers.tend(self.storage)
        if self.leases:
            self.leases.release_silent()
        with self.pace.looking():
            self._refuse_failing()
            self.stop.count(self.storage)
            self.show(self.storage)
        for _ in range(self.pace.polls()):
            if not self.stop.due():
                time.sleep(POLL_SECONDS)

    def _refuse_failing(self) -> None:
        """End a launch whose own workers fail at one job after the other, before it spoils the others' study."""
        given_up = [job for job in self._own(TrialState.FAIL) if study.is_given_up(job)]
        if len(given_up) < _CRASHES_IN_A_ROW:
            return
        ended = self._own(TrialState.COMPLETE, TrialState.FAIL)
        last = sorted((job.datetime_complete, job._trial_id) for job in ended if job.datetime_complete)
        failed = {job._trial_id: job for job in given_up}
        if all(trial_id in failed for _, trial_id in last[-_CRASHES_IN_A_ROW:]):
            first = failed[last[-_CRASHES_IN_A_ROW][1]]
            msg = (
                f"the last {_CRASHES_IN_A_ROW} jobs here all failed, {study.MOST_ATTEMPTS} times each; mend the "
                f"cause, then go on with --resume; the first of them ended so:\n{first.user_attrs['detail']}"
            )
            raise NoTrialError(msg)

    def _own(self, *states: TrialState) -> list[FrozenTrial]:
        """The jobs of any purpose that this launch's own workers ended so."""
        found = [job for each in study.PURPOSES for job in self.storage.trials(each, *states)]
        return [job for job in found if supervisor_of(job.user_attrs.get("owner", "")) == self.storage.supervisor]


def _refuse_hopeless(trials: Sequence[FrozenTrial], over: bool) -> None:
    crashed = [trial for trial in trials if study.is_given_up(trial)]
    complete = any(trial.state is TrialState.COMPLETE for trial in trials)
    if not complete and (over or len(crashed) >= _CRASHES_WITHOUT_SUCCESS):
        first = next(trial.user_attrs["detail"] for trial in trials if trial.state is TrialState.FAIL)
        msg = f"no trial could be completed; mend the cause of the first failure, which was:\n{first}"
        raise NoTrialError(msg)
