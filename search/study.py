"""The study's storage, the only truth: an Optuna study of trials, one of confirmation jobs, one of probes.

Owns what is queued, who carries it out, what is recorded of it and in what form. All work is queued before it is
claimed and every claim changes one state in one transaction, so the number of trials is exact whatever happens to the
workers: work interrupted goes back to the queue under its own number.
"""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import optuna
import sqlalchemy
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from search.config import StudyConfig
from search.cost import Budget, Costs
from search.errors import StorageError
from search.evaluate import Fidelity, Split
from search.schedule import FilterSchedule

MOST_ATTEMPTS = 3
Purpose = Literal["search", "confirm", "probe"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

# Over the tables of Optuna's RDB storage, whose schema Optuna migrates and never breaks within a major version.
_TAKE = sqlalchemy.text(
    "UPDATE trials SET state = 'RUNNING', datetime_start = :now WHERE trial_id = :id AND state = 'WAITING'"
).bindparams(sqlalchemy.bindparam("now", type_=sqlalchemy.DateTime))
_FORGET = sqlalchemy.text("DELETE FROM trial_user_attributes WHERE trial_id = :id AND key = :key")
_NOTE = sqlalchemy.text("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:id, :key, :value)")

_REFUSALS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)

# Optuna announces every trial on the user's screen; progress is shown by the command line instead.
optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Storage:
    """The Optuna studies of one search, and transitions on their trials.

    Attributes:
        backend: Optuna's storage; in memory it is one process's own, and gone with it.
        search: The study whose trials are candidates.
        confirm: The study whose trials are confirmation jobs.
        probe: The study whose trials are probes.
    """

    backend: RDBStorage | InMemoryStorage
    search: optuna.Study
    confirm: optuna.Study
    probe: optuna.Study

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
        study = self.study(purpose)
        for waiting in self.trials(purpose, TrialState.WAITING):
            trial_id = self._id(study, waiting)
            if self._take(trial_id, waiting.user_attrs.get("attempts", 0) + 1):
                return Trial(study, trial_id)
        return None

    def _take(self, trial_id: int, attempt: int) -> bool:
        """Make a waiting trial running and ours in one transaction; False when another worker was faster.

        Optuna's own transition reads the state before it writes it, and SQLite lets two workers do so at once.
        """
        if isinstance(self.backend, InMemoryStorage):
            self.backend.set_trial_user_attr(trial_id, "owner", os.getpid())
            self.backend.set_trial_user_attr(trial_id, "attempts", attempt)
            return self.backend.set_trial_state_values(trial_id, TrialState.RUNNING)
        with self.backend.engine.begin() as connection:
            taken = connection.execute(_TAKE, {"id": trial_id, "now": datetime.now()})
            if taken.rowcount != 1:
                return False
            for key, value in (("owner", os.getpid()), ("attempts", attempt)):
                connection.execute(_FORGET, {"id": trial_id, "key": key})
                connection.execute(_NOTE, {"id": trial_id, "key": key, "value": str(value)})
        return True

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
        study, released = self.study(purpose), 0
        for trial in self.trials(purpose, TrialState.RUNNING):
            if owner is not None and trial.user_attrs.get("owner") != owner:
                continue
            released += 1
            trial_id = self._id(study, trial)
            attempts = trial.user_attrs.get("attempts", 0)
            if owner is None:
                self.backend.set_trial_user_attr(trial_id, "attempts", max(0, attempts - 1))
            self.backend.set_trial_user_attr(trial_id, "detail", detail[-2000:])
            if owner is not None and attempts >= MOST_ATTEMPTS:
                self.backend.set_trial_user_attr(trial_id, "reason", "crash")
                self.backend.set_trial_state_values(trial_id, TrialState.FAIL)
            else:
                self.backend.set_trial_state_values(trial_id, TrialState.WAITING)
        return released

    def _id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return self.backend.get_trial_id_from_study_id_trial_number(
            self.backend.get_study_id_from_name(study.study_name), trial.number
        )


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
    backend = _connect(path, create=True)
    search = _create_studies(backend, config, directions).search
    search.set_user_attr("config", config.semantic())
    search.set_user_attr("fingerprint", config.fingerprint())
    search.set_user_attr("data", data_fingerprint)
    backend.remove_session()
    backend.engine.dispose()


def create_in_memory(config: StudyConfig, directions: Sequence[str], sampler: optuna.samplers.BaseSampler) -> Storage:
    """A storage for a single process that keeps nothing, many times as fast as SQLite."""
    return _create_studies(InMemoryStorage(), config, directions, sampler)


def _create_studies(
    backend: RDBStorage | InMemoryStorage,
    config: StudyConfig,
    directions: Sequence[str],
    sampler: optuna.samplers.BaseSampler | None = None,
) -> Storage:
    aims = [optuna.study.StudyDirection[each.upper()] for each in directions]
    search = optuna.create_study(storage=backend, study_name=config.name, directions=aims, sampler=sampler)
    confirm, probe = (
        optuna.create_study(storage=backend, study_name=f"{config.name}:{purpose}", direction="maximize")
        for purpose in ("confirm", "probe")
    )
    return Storage(backend, search, confirm, probe)


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
    backend = _connect(folder / "study.db", create=False)
    try:
        search = optuna.load_study(study_name=name, storage=backend, sampler=sampler)
        confirm, probe = (
            optuna.load_study(study_name=f"{name}:{purpose}", storage=backend) for purpose in ("confirm", "probe")
        )
    except KeyError:
        msg = f"{folder / 'study.db'} holds no study named {name!r}; restore it or start anew in another folder"
        raise StorageError(msg) from None
    return Storage(backend, search, confirm, probe)


def _connect(path: Path, *, create: bool) -> RDBStorage:
    try:
        return RDBStorage(
            f"sqlite:///{path.resolve()}",
            # The timeout outlasts every other worker's transaction, so a busy file is waited for, not failed on.
            engine_kwargs={"connect_args": {"timeout": 60}},
            skip_table_creation=not create,
        )
    except (*_REFUSALS, RuntimeError) as error:
        raise StorageError(_unusable(path, error)) from None


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
    for index, proposal in enumerate(proposals):
        if index not in live:
            attrs = {"proposal": index, "origin": proposal.origin, "budget": str(proposal.budget)}
            storage.search.enqueue_trial(proposal.params, user_attrs=attrs)


def enqueue_given_up(storage: Storage) -> None:
    """Queue every confirmation job again that was given up."""
    for job in jobs(storage, "confirm"):
        if is_given_up(job):
            schedule, first, count = _span(job)
            enqueue_confirmation(storage, FilterSchedule.parse(schedule), first, count)


def enqueue_probes(storage: Storage, probes: Iterable[Probe]) -> None:
    """Queue the probes that are not waiting, running or finished."""
    live = {Probe.of(job) for job in storage.trials("probe") if not is_given_up(job)}
    for probe in probes:
        if probe not in live:
            storage.probe.enqueue_trial({}, user_attrs=asdict(probe) | {"schedule": str(probe.schedule)})


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
    storage.confirm.enqueue_trial({}, user_attrs={"schedule": str(schedule), "first": first, "count": count})


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
