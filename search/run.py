"""The main job: search, confirmation and verdict of one study, from its folder's creation to its last file.

Coordinates only: queues work, tends the workers, and stops cleanly. What is trained is in the storage, what follows
from it in `findings`.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from optuna.trial import TrialState

from search import configfile, folder, fusing, leaderboard, study
from search.annotations import annotate
from search.cases import (
    Case,
    Exploration,
    Standing,
    standings,
    store_cases,
    store_exploration,
    stored_cases,
    stored_explorations,
)
from search.confirm import choose_cases, enqueue_next, fit_surrogate
from search.data import ImageData
from search.errors import ConfigError, InterruptedStudyError, NoTrialError, StorageError
from search.exact import exact_findings, exact_standings
from search.export import export_best, is_exported
from search.findings import Findings, conclude
from search.launch import POLL_SECONDS, LocalWorkers, Pace
from search.memorylimit import memory_limit
from search.plan import StudyPlan
from search.progress import Progress, mark_done, progress
from search.records import write_records, write_verdict
from search.report import write_report
from search.soundness import probes
from search.study import Storage
from search.training import device_name
from search.worker import make_evaluator

_CRASHES_WITHOUT_SUCCESS = 3


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes:
        findings: What the study says; None when its time was up before the search had ended.
        standings: Where every case stands.
        progress: What was done and what was given up.
        stopped: Whether `max_wall_hours` ended it early.
    """

    findings: Findings | None
    standings: list[Standing]
    progress: Progress
    stopped: bool


class Stop:
    """What asks a launch to stop early: a signal or its deadline.

    Args:
        max_wall_hours: When the time is up, from now; None for never.
    """

    def __init__(self, max_wall_hours: float | None) -> None:
        self.signal: int | None = None
        self.signals = 0
        self.heeded = False
        self._deadline = None if max_wall_hours is None else time.monotonic() + max_wall_hours * 3600

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Note a signal and say so; after a second one the next ends the process as it would any other."""
        self.signal, self.signals = number, self.signals + 1
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
        self.heeded = self.signal is not None or (self._deadline is not None and time.monotonic() > self._deadline)
        return self.heeded


def run_study(
    plan: StudyPlan,
    where: Path,
    *,
    workers: int,
    resume: bool,
    command: Sequence[str],
    show: Callable[[Storage], None],
) -> Ended:
    """Run a study to its verdict and write its folder.

    Args:
        plan: The study worked out.
        where: The study folder.
        workers: Local processes.
        resume: Continue the study in `where` if there is one.
        command: The command line, as recorded.
        show: Called a few times a second.

    Raises:
        ConfigError: A study exists and `resume` is off, or it was made by another configuration or other data.
        StorageError: The folder or the study in it cannot be used.
        NoTrialError: No trial could be completed.
        InterruptedStudyError: A signal stopped the study; everything finished is kept.
    """
    _check_startable(plan, where, resume)  # before anything is written
    folder.make(where)
    limit = plan.config.compute.max_wall_hours
    with folder.locked(where) as lock, _stopping(limit) as stop, study.guarded(where):
        _check_startable(plan, where, resume)  # again: another launcher may have been here before the lock was ours
        storage = _open(plan, where)
        if not (where / "environment.json").exists():
            written = folder.environment(command, plan.config.seed, workers, device_name(plan.config.compute.device))
            notes = plan.source.notes if isinstance(plan.source, ImageData) else ()
            folder.write_json(where / "environment.json", written | {"data_notes": list(notes)})
        configfile.write(plan.config, where / "config.yaml")
        before = progress(storage)
        if plan.exhaustive:
            mark_done(storage)
        else:
            with storage.written_fast(), LocalWorkers(where, workers, lock) as local:
                try:
                    Launch(plan, storage, local, stop, show).carry_out()
                finally:
                    write_records(where, storage)
                    folder.note_environment(where, fusing.decided(storage))
        if stop.signals > 1:
            stop.end()
        findings = write_outcome(plan, storage, where)
        complete = findings and progress(storage) == before and is_exported(findings, where)
        if findings and not complete and plan.config.table is None:  # which has no weights
            torch.set_num_threads(1)  # as in a worker: on networks this small a second thread costs time
            export_best(plan, findings, where, make_evaluator(plan), interrupted=lambda: stop.signal is not None)
            write_report(where, findings, storage)  # again: it shows what the export saw
        if findings and plan.exhaustive:
            standing = exact_standings(findings)
        else:
            standing = standings(storage, plan.config.confirm)
        ended = Ended(findings, standing, progress(storage), stop.heeded)
    stop.end()
    return ended


def explore(
    plan: StudyPlan, terms: StudyPlan, where: Path, *, workers: int, show: Callable[[Storage], None]
) -> list[Standing]:
    """Judge a finished study on other terms, with further runs where they are needed.

    Terms chosen after looking at a verdict make another one `exploratory`. Runs made before count again; the cases of
    budgets judged before keep their challengers, and those of new budgets get theirs from the surrogate.

    Args:
        plan: The study worked out.
        terms: The same with another margin, other looks or other budgets.
        where: Its folder.
        workers: Local processes.
        show: Called a few times a second.

    Raises:
        ConfigError: The study has no verdict yet.
        StorageError: The folder or the study in it cannot be used.
        InterruptedStudyError: A signal stopped it; asking again goes on.
    """
    with folder.locked(where) as lock, _stopping(plan.config.compute.max_wall_hours) as stop, study.guarded(where):
        storage = study.load(where, plan.config.name)
        planned = stored_cases(storage)
        if planned is None:
            msg = f"the study in {where} has no verdict yet; first go on with {folder.resume_command(where)}"
            raise ConfigError(msg)
        known = {(case.budget, case.rule): case for case in planned}
        chosen = choose_cases(terms, fit_surrogate(storage, plan.config.seed), memory_limit(*storage.studies))
        cases = tuple(known.get((case.budget, case.rule), case) for case in chosen)
        exploration = Exploration(terms.config.confirm, cases)
        if exploration not in stored_explorations(storage):
            store_exploration(storage, exploration)
        study.enqueue_given_up(storage)
        with storage.written_fast(), LocalWorkers(where, workers, lock) as local:
            launch = Launch(terms, storage, local, stop, show)
            try:
                launch.confirm_all(cases)
            finally:
                launch.drain()
        write_outcome(plan, storage, where)
        standing = standings(storage, exploration.confirm, cases)
    stop.end()
    return standing


def write_outcome(plan: StudyPlan, storage: Storage, where: Path) -> Findings | None:
    """Write what follows from the storage: the records and, once the cases are fixed, verdict and report.

    Returns:
        None while the search goes on.
    """
    write_records(where, storage)
    if stored_cases(storage) is None and not plan.exhaustive:
        return None
    findings = exact_findings(plan) if plan.exhaustive else conclude(plan, storage)
    write_verdict(where, findings)
    leaderboard.write(where, findings, storage)
    write_report(where, findings, storage)
    try:
        with study.guarded(where):
            annotate(storage, findings)
    except StorageError as error:
        if not _is_read_only(error):  # else the report is all there can be
            raise
    return findings


def _is_read_only(error: StorageError) -> bool:
    """Whether it came of a database that this user may read and not write, by SQLite's own code for that."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(getattr(cause, "orig", None), "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            return True
        cause = cause.__cause__
    return False


@contextmanager
def _stopping(max_wall_hours: float | None) -> Iterator[Stop]:
    stop = Stop(max_wall_hours)
    own = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop.catch) for number in own}  # which no other thread may set
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_startable(plan: StudyPlan, where: Path, resume: bool) -> None:
    folder.check_startable(where, resume)
    if (where / "study.db").exists():
        check_same(plan, study.load(where, plan.config.name), where)


def check_same(plan: StudyPlan, storage: Storage, where: Path) -> None:
    """Refuse a study made by another configuration or on other data: its margin and budgets came first.

    Raises:
        ConfigError: With the differences.
    """
    attrs = storage.search.user_attrs
    configfile.refuse_another(attrs["config"], plan.config, where)
    if attrs["data"] != plan.source.fingerprint:
        msg = (
            f"{plan.source.name} is no longer what the study in {where} was made on: something in it has changed; put "
            "it back as it was, or give another folder with --out"
        )
        raise ConfigError(msg)


def _open(plan: StudyPlan, where: Path) -> Storage:
    """The study's storage, its trials all queued, nothing running; made where there is none."""
    if (where / "study.db").exists():
        storage = study.load(where, plan.config.name)
    else:
        storage = study.create(where, plan.config, plan.objective.directions, plan.source.fingerprint)
    for purpose in study.PURPOSES:
        storage.release(purpose, None, "interrupted")
    study.enqueue_missing(storage, plan.proposals())
    study.enqueue_given_up(storage)
    return storage


class Workers(Protocol):
    """Whoever carries out queued jobs."""

    def tend(self, storage: Storage) -> None:
        """Look after them; called a few times a second while jobs are queued."""

    def drain(self) -> None:
        """Ask them to end after the job at hand."""

    def kill(self) -> None:
        """End them at once."""

    def running(self) -> bool:
        """Whether any has not ended."""


@dataclass(frozen=True)
class Launch:
    """One launch of a study: its queue, its workers and what may stop it."""

    plan: StudyPlan
    storage: Storage
    workers: Workers
    stop: Stop
    show: Callable[[Storage], None]
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
            NoTrialError: It ended, or will end, without a single complete trial.
        """
        while not self.stop.due():
            with self.pace.looking():
                trials = study.jobs(self.storage, "search")
            crashed = [trial for trial in trials if study.is_given_up(trial)]
            complete = any(trial.state is TrialState.COMPLETE for trial in trials)
            over = not any(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in trials)
            if not complete and (over or len(crashed) >= _CRASHES_WITHOUT_SUCCESS):
                first = next(trial.user_attrs["detail"] for trial in trials if trial.state is TrialState.FAIL)
                msg = f"no trial could be completed; mend the cause of the first failure, which was:\n{first}"
                raise NoTrialError(msg)
            if over:
                return True
            self._tend()
        return False

    def confirm(self) -> bool:
        """Carry the confirmation out until every case is closed; False when it was stopped."""
        cases = stored_cases(self.storage)
        if cases is None:
            surrogate = fit_surrogate(self.storage, self.plan.config.seed)
            cases = choose_cases(self.plan, surrogate, memory_limit(*self.storage.studies))
            store_cases(self.storage, cases)
        return self.confirm_all(cases)

    def confirm_all(self, cases: Sequence[Case]) -> bool:
        """Carry out what these cases need; False when it was stopped."""
        while not self.stop.due():
            if not self._busy("confirm") and not enqueue_next(self.storage, cases, self.plan):
                return True
            self._tend()
        return False

    def probe(self) -> bool:
        """Carry out the probes that ask how far the verdicts can be trusted; False when it was stopped."""
        study.enqueue_probes(self.storage, probes(self.plan, self.storage))
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
            time.sleep(POLL_SECONDS)
        for purpose in study.PURPOSES:
            self.storage.release(purpose, None, "interrupted")

    def _busy(self, purpose: study.Purpose) -> bool:
        with self.pace.looking():
            return bool(self.storage.trials(purpose, TrialState.WAITING, TrialState.RUNNING))

    def _tend(self) -> None:
        """Look after the workers, then wait until it is time to look again."""
        self.workers.tend(self.storage)
        with self.pace.looking():
            self.show(self.storage)
        for _ in range(self.pace.polls()):
            if not self.stop.due():
                time.sleep(POLL_SECONDS)
