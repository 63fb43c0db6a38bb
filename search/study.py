"""The study's storage, the only truth: an Optuna study of trials, one of confirmation jobs, one of probes.

Owns what is queued, who carries it out, what is recorded of it and in what form. All work is queued before it is
claimed and every claim changes one state in one transaction, so the number of trials is exact whatever happens to the
workers: work interrupted goes back to the queue under its own number.
"""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import optuna
import sqlalchemy
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.pool import NullPool

from search.config import StudyConfig
from search.cost import Budget, Costs
from search.errors import StorageError
from search.evaluate import Fidelity, Split
from search.schedule import FilterSchedule
from search.trialstore import TrialStore

MOST_ATTEMPTS = 3
Purpose = Literal["search", "confirm", "probe"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

_REFUSALS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)

# Optuna announces every trial on the user's screen; progress is shown by the command line instead.
optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Storage:
    """The Optuna studies of one search, and transitions on their trials.

    Attributes:
        store: Where they are kept; in memory they are one process's own, and gone with it.
        search: The study whose trials are candidates.
        confirm: The study whose trials are confirmation jobs.
        probe: The study whose trials are probes.
    """

    store: TrialStore | InMemoryStorage
    search: optuna.Study
    confirm: optuna.Study
    probe: optuna.Study

    @property
    def backend(self) -> RDBStorage | InMemoryStorage:
        """Optuna's storage, for what reads or writes it as a whole."""
        return self.store.backend if isinstance(self.store, TrialStore) else self.store

    def written_fast(self) -> AbstractContextManager[None]:
        """While a study runs: see `TrialStore.written_fast`."""
        return self.store.written_fast() if isinstance(self.store, TrialStore) else nullcontext()

    @property
    def studies(self) -> tuple[optuna.Study, ...]:
        """One for each purpose, in the order of `PURPOSES`."""
        return self.search, self.confirm, self.probe

    def study(self, purpose: Purpose) -> optuna.Study:
        """The study of one purpose."""
        return self.studies[PURPOSES.index(purpose)]

    def trials(self, purpose: Purpose, *states: TrialState) -> list[FrozenTrial]:
        """Trials in the order of their numbers; all states unless some are named."""
        return self.study(purpose).get_trials(deepcopy=False, states=states or None)

    def claim(self, purpose: Purpose) -> Trial | None:
        """The first waiting trial, now running and ours; None when nothing waits.

        `Study.ask` would create a trial where none waits, and the number of trials would depend on races.
        """
        study, owner = self.study(purpose), os.getpid()
        if isinstance(self.store, TrialStore):
            trial_id = self.store.claim(self.store.get_study_id_from_name(study.study_name), owner)
            return None if trial_id is None else Trial(study, trial_id)
        for waiting in self.trials(purpose, TrialState.WAITING):
            trial_id = waiting._trial_id
            self.store.set_trial_user_attr(trial_id, "owner", owner)
            self.store.set_trial_user_attr(trial_id, "attempts", waiting.user_attrs.get("attempts", 0) + 1)
            self.store.set_trial_state_values(trial_id, TrialState.RUNNING)
            return Trial(study, trial_id)
        return None

    def write(self, trial: Trial) -> None:
        """Write what was noted of a claimed trial so far, as ending it does too."""
        if isinstance(self.store, TrialStore):
            self.store.write(trial._trial_id)

    def release(self, purpose: Purpose, owner: int | None, detail: str) -> int:
        """Put running trials back into the queue; those tried too often are given up.

        Args:
            purpose: Which study.
            owner: Process whose trials to release, each counted as a failed attempt; None for everybody's after an
                interruption, which is held against no trial.
            detail: What happened, kept with the trial.

        Returns:
            How many were released or given up.
        """
        released = 0
        for trial in self.trials(purpose, TrialState.RUNNING):
            if owner is not None and trial.user_attrs.get("owner") != owner:
                continue
            released += 1
            trial_id = trial._trial_id
            attempts = trial.user_attrs.get("attempts", 0)
            if owner is None:
                self.store.set_trial_user_attr(trial_id, "attempts", max(0, attempts - 1))
            self.store.set_trial_user_attr(trial_id, "detail", detail[-2000:])
            if owner is not None and attempts >= MOST_ATTEMPTS:
                self.store.set_trial_user_attr(trial_id, "reason", "crash")
                self.store.set_trial_state_values(trial_id, TrialState.FAIL)
            else:
                self.store.set_trial_state_values(trial_id, TrialState.WAITING)
        return released

    def queue(self, purpose: Purpose, queued: Sequence[tuple[dict[str, int], dict[str, Any]]]) -> None:
        """Queue trials, each of its fixed multiples and its attributes, all or none."""
        study = self.study(purpose)
        trials = [
            optuna.trial.create_trial(
                state=TrialState.WAITING, system_attrs={"fixed_params": params}, user_attrs=attrs
            )
            for params, attrs in queued
        ]
        if isinstance(self.store, TrialStore):
            self.store.add(self.store.get_study_id_from_name(study.study_name), trials)
        else:
            study.add_trials(trials)


def create(folder: Path, config: StudyConfig, directions: Sequence[str], data_fingerprint: str) -> Storage:
    """Make the storage's tables and studies, before any worker starts.

    The configuration and its hash are kept before the first run, so nobody can doubt that the margin came first.

    Raises:
        StorageError: The storage cannot be written.
    """
    path = folder / "study.db"
    unready = folder / ".study.db.new"
    unready.unlink(missing_ok=True)
    _create(unready, config, directions, data_fingerprint)
    unready.rename(path)  # whole or not at all: a launch killed in between leaves nothing that looks like a study
    return load(folder, config.name)


def _create(path: Path, config: StudyConfig, directions: Sequence[str], data_fingerprint: str) -> None:
    store = _connect(path, create=True)
    search = _create_studies(store, config, directions).search
    search.set_user_attr("config", config.semantic())
    search.set_user_attr("fingerprint", config.fingerprint())
    search.set_user_attr("data", data_fingerprint)
    store.disconnect()


def create_in_memory(config: StudyConfig, directions: Sequence[str], sampler: optuna.samplers.BaseSampler) -> Storage:
    """A storage for a single process that keeps nothing, many times as fast as SQLite."""
    return _create_studies(InMemoryStorage(), config, directions, sampler)


def _create_studies(
    store: TrialStore | InMemoryStorage,
    config: StudyConfig,
    directions: Sequence[str],
    sampler: optuna.samplers.BaseSampler | None = None,
) -> Storage:
    aims = [optuna.study.StudyDirection[each.upper()] for each in directions]
    search = optuna.create_study(storage=store, study_name=config.name, directions=aims, sampler=sampler)
    confirm, probe = (
        optuna.create_study(storage=store, study_name=f"{config.name}:{purpose}", direction="maximize")
        for purpose in ("confirm", "probe")
    )
    return Storage(store, search, confirm, probe)


def load(folder: Path, name: str, sampler: optuna.samplers.BaseSampler | None = None) -> Storage:
    """Open an existing study.

    Args:
        folder: The study folder.
        name: The study's name.
        sampler: What proposes candidates; only a worker needs one.

    Raises:
        StorageError: There is none, or it is not readable as one.
    """
    if not (folder / "study.db").is_file():
        msg = f"{folder} holds no study.db; name the folder of a study that `filter-search run` made"
        raise StorageError(msg)
    store = _connect(folder / "study.db", create=False)
    try:
        search = optuna.load_study(study_name=name, storage=store, sampler=sampler)
        confirm, probe = (
            optuna.load_study(study_name=f"{name}:{purpose}", storage=store) for purpose in ("confirm", "probe")
        )
    except KeyError:
        msg = f"{folder / 'study.db'} holds no study named {name!r}; restore it or start anew in another folder"
        raise StorageError(msg) from None
    return Storage(store, search, confirm, probe)


def _connect(path: Path, *, create: bool) -> TrialStore:
    try:
        backend = RDBStorage(
            f"sqlite:///{path.resolve()}",
            # The timeout outlasts every other worker's transaction, so a busy file is waited for, not failed on.
            # unpooled: a connection kept open by whoever looks on keeps SQLite's log beside the file
            engine_kwargs={"connect_args": {"timeout": 60}, "poolclass": NullPool},
            skip_table_creation=not create,
        )
    except (*_REFUSALS, RuntimeError) as error:
        raise StorageError(_unusable(path, error)) from None
    return TrialStore(backend)


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """What the storage refuses in here, such as a full disk or a damaged file, becomes one message.

    Raises:
        StorageError: In place of what SQLAlchemy, or Optuna on top of it, raises.
    """
    try:
        yield
    except _REFUSALS as error:
        raise StorageError(_unusable(folder / "study.db", error)) from error


def _unusable(path: Path, error: Exception) -> str:
    cause = error.__cause__ or error
    reason = str(getattr(cause, "orig", cause)).splitlines()[0]
    return f"{path} cannot be used as a study ({reason}); mend that, restore a copy or start anew in another folder"


@dataclass(frozen=True)
class Proposal:
    """A trial to queue.

    Attributes:
        origin: The rule it is a member of, or the sampler that is to propose it.
        budget: The budget it aims at.
        params: Multiples of every stage; empty where a sampler is to propose them.
    """

    origin: str
    budget: Budget
    params: dict[str, int]


@dataclass(frozen=True)
class Probe:
    """Runs that ask whether a verdict is an artefact, to queue as one job.

    Attributes:
        schedule: What to train.
        first: Index of the first run; it settles the seeds.
        count: How many runs.
        split: What to score them on.
        epochs: How long to train.
        share: Share of the training split to train on.
        learning_rate_factor: What multiplies the learning rate.
    """

    schedule: FilterSchedule
    first: int
    count: int
    split: Split
    epochs: int
    share: float = 1.0
    learning_rate_factor: float = 1.0

    @classmethod
    def of(cls, job: FrozenTrial | Trial) -> Self:
        """What a job was queued for."""
        values = {field.name: job.user_attrs[field.name] for field in fields(cls) if field.name in job.user_attrs}
        return cls(**values | {"schedule": FilterSchedule.parse(values["schedule"])})

    @property
    def fidelity(self) -> Fidelity:
        """How its runs train."""
        return Fidelity(self.epochs, self.share, self.learning_rate_factor)


def enqueue_missing(storage: Storage, proposals: Sequence[Proposal]) -> None:
    """Queue a trial for every proposal that has none waiting, running or finished.

    What makes the number of trials exact: it mends a launch killed while it queued, and gives what was given up
    after crashes another chance.
    """
    live = {trial.user_attrs["proposal"] for trial in storage.trials("search") if not is_given_up(trial)}
    missing = [
        (proposal.params, {"proposal": index, "origin": proposal.origin, "budget": str(proposal.budget)})
        for index, proposal in enumerate(proposals)
        if index not in live
    ]
    storage.queue("search", missing)


def enqueue_given_up(storage: Storage) -> None:
    """Queue every confirmation job again that was given up."""
    for job in jobs(storage, "confirm"):
        if is_given_up(job):
            schedule, first, count = _span(job)
            enqueue_confirmation(storage, FilterSchedule.parse(schedule), first, count)


def enqueue_probes(storage: Storage, probes: Iterable[Probe]) -> None:
    """Queue the probes that are not waiting, running or finished."""
    live = {Probe.of(job) for job in storage.trials("probe") if not is_given_up(job)}
    missing: list[tuple[dict[str, int], dict[str, Any]]] = [
        ({}, asdict(probe) | {"schedule": str(probe.schedule)}) for probe in probes if probe not in live
    ]
    storage.queue("probe", missing)


def jobs(storage: Storage, purpose: Purpose) -> list[FrozenTrial]:
    """Every job once: of one that was given up and queued again only the later trial."""
    return list({_identity(purpose, trial): trial for trial in storage.trials(purpose)}.values())


def _identity(purpose: Purpose, trial: FrozenTrial) -> object:
    match purpose:
        case "search":
            return trial.user_attrs["proposal"]
        case "confirm":
            return _span(trial)
        case "probe":
            return Probe.of(trial)


def _span(job: FrozenTrial) -> tuple[str, int, int]:
    return job.user_attrs["schedule"], job.user_attrs["first"], job.user_attrs["count"]


def enqueue_confirmation(storage: Storage, schedule: FilterSchedule, first: int, count: int) -> None:
    """Queue confirmation runs `first` to `first + count - 1` of a schedule as one job."""
    storage.queue("confirm", [({}, {"schedule": str(schedule), "first": first, "count": count})])


def run_seeds(study_seed: int, purpose: Purpose, schedule: FilterSchedule, first: int, count: int) -> list[int]:
    """Seeds of runs `first` to `first + count - 1` of a schedule.

    Different purposes, schedules and runs never share one, up to 32-bit collisions.
    """
    common = [study_seed, PURPOSES.index(purpose), *schedule.filters]
    return [
        int(np.random.SeedSequence([*common, index]).generate_state(1)[0]) for index in range(first, first + count)
    ]


def costs_of(trial: FrozenTrial) -> Costs:
    """The costs a trial was priced at."""
    return Costs(**trial.user_attrs["costs"])


def accuracy_of(trial: FrozenTrial) -> float:
    """Mean accuracy over a trial's scored runs; NaN without any."""
    scores = [run["accuracy"] for run in trial.user_attrs.get("runs", ()) if "accuracy" in run]
    return float(np.mean(scores)) if scores else math.nan


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial counts: scored, or failed for a reason of its own (`diverged`, `oom`)."""
    if trial.state is TrialState.FAIL:
        return trial.user_attrs.get("reason") in ("diverged", "oom")
    return trial.state is TrialState.COMPLETE


def is_given_up(trial: FrozenTrial) -> bool:
    """Whether a job ended without counting: it crashed too often, and a resume tries it again."""
    return trial.state is TrialState.FAIL and not is_finished(trial)
