"""The study's storage, the only truth: an Optuna study of trials, one of confirmation jobs, one of probes.

Owns what is queued, who carries it out, what is recorded of it and in what form. All work is queued before it is
claimed and every claim changes one state in one transaction, so the number of trials is exact whatever happens to the
workers: work interrupted goes back to the queue under its own number.
"""

import logging
import math
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import optuna
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL

from search import database, storageurl
from search.config import StudyConfig
from search.cost import Costs
from search.errors import StorageError
from search.schedule import FilterSchedule
from search.trialstore import TrialStore

MOST_ATTEMPTS = 3
Purpose = Literal["search", "confirm", "probe"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Queued = tuple[dict[str, int], dict[str, Any]]
"""A trial to queue: its fixed multiples and its attributes."""

_WHOLE = "config"  # the attribute that is written last
_SETTINGS = "settings"
# Optuna announces every trial on the user's screen; progress is shown by the command line instead.
optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


def supervisor_id() -> str:
    """A name for a supervisor that no other has; its first part is the host."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def supervisor_of(owner: str) -> str:
    """Who tends the worker that a trial is marked with."""
    return str(owner).rpartition("/")[0]


def host_of(supervisor: str) -> str:
    """Which machine a supervisor is on."""
    return supervisor.partition(":")[0]


@dataclass(frozen=True)
class Storage:
    """The Optuna studies of one search, and transitions on their trials.

    Attributes:
        store: Where they are kept; in memory they are one process's own, and gone with it.
        search: The study whose trials are candidates.
        confirm: The study whose trials are confirmation jobs.
        probe: The study whose trials are probes.
        supervisor: Who tends the worker that this process is; itself unless it says so.
    """

    store: TrialStore | InMemoryStorage
    search: optuna.Study
    confirm: optuna.Study
    probe: optuna.Study
    supervisor: str = field(default_factory=supervisor_id)

    @property
    def backend(self) -> RDBStorage | InMemoryStorage:
        """Optuna's storage, for what reads or writes it as a whole."""
        return self.store.backend if isinstance(self.store, TrialStore) else self.store

    def written_fast(self) -> AbstractContextManager[None]:
        """While a study runs: see `TrialStore.written_fast`."""
        return self.store.written_fast() if isinstance(self.store, TrialStore) else nullcontext()

    @property
    def owner(self) -> str:
        """What trials that this process carries out are marked with."""
        return f"{self.supervisor}/{os.getpid()}"

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
        study, owner = self.study(purpose), self.owner
        if isinstance(self.store, TrialStore):
            trial_id = self.store.claim(self._id(purpose), owner)
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

    def release(self, purpose: Purpose, whose: Callable[[str], bool], detail: str, *, counts: bool = True) -> int:
        """Put running trials back into the queue; those tried too often are given up.

        Args:
            purpose: Which study.
            whose: Whether to release those of an owner.
            detail: What happened, kept with the trial.
            counts: Whether this was an attempt that failed, and no mere interruption.

        Returns:
            How many were released or given up.
        """
        found = self.trials(purpose, TrialState.RUNNING)
        owned = [(trial, trial.user_attrs["owner"]) for trial in found if whose(trial.user_attrs["owner"])]
        most = MOST_ATTEMPTS if counts else None
        return sum(self._release(trial, owner, detail[-2000:], most) for trial, owner in owned)

    def _release(self, trial: FrozenTrial, owner: str, detail: str, most_attempts: int | None) -> bool:
        if isinstance(self.store, TrialStore):
            return self.store.release(trial._trial_id, owner, detail, most_attempts)
        self.store.set_trial_user_attr(trial._trial_id, "detail", detail)
        self.store.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        return True

    def has_claimed(self, whose: Callable[[str], bool]) -> bool:
        """Whether an owner has claimed anything that nobody else did later."""
        return any(whose(trial.user_attrs.get("owner", "")) for each in PURPOSES for trial in self.trials(each))

    def queue(self, purpose: Purpose, queued: Sequence[Queued], after: int | None = None) -> bool:
        """Queue trials, each of its fixed multiples and its attributes, all or none.

        Args:
            purpose: Which study's.
            queued: The trials.
            after: How many trials the study had when this was decided; None where nobody else may queue any.

        Returns:
            False, with none queued, where another supervisor has queued some since: look again.
        """
        trials = [
            optuna.trial.create_trial(
                state=TrialState.WAITING, system_attrs={"fixed_params": params}, user_attrs=attrs
            )
            for params, attrs in queued
        ]
        if isinstance(self.store, TrialStore):
            return self.store.add(self._id(purpose), trials, after)
        self.study(purpose).add_trials(trials)
        return True

    def set_once(self, purpose: Purpose, key: str, value: Any) -> None:  # noqa: ANN401 # plain values
        """Give a study an attribute unless it has it."""
        study = self.study(purpose)
        if isinstance(self.store, TrialStore):
            self.store.set_once(self._id(purpose), key, value)
        elif key not in study.user_attrs:
            study.set_user_attr(key, value)

    def append(self, purpose: Purpose, key: str, value: Any) -> None:  # noqa: ANN401 # plain values
        """Add to an attribute of a study that is a list, unless it is in there, together with whoever else does."""
        study = self.study(purpose)
        if isinstance(self.store, TrialStore):
            self.store.append(self._id(purpose), key, value)
        elif value not in (known := study.user_attrs.get(key, [])):
            study.set_user_attr(key, [*known, value])

    def say(self, key: str, value: Any) -> None:  # noqa: ANN401 # plain values
        """Note something with the study that is none of its results; from any thread."""
        self.store.set_study_system_attr(self._id("search"), key, value)

    def said(self) -> dict[str, Any]:
        """What is noted so."""
        return dict(self.store.get_study_system_attrs(self._id("search")))

    def forget(self, key: str) -> None:
        """Remove what was noted so."""
        if isinstance(self.store, TrialStore):
            self.store.forget(self._id("search"), key)

    def disconnect(self) -> None:
        """Close every connection, which no fork of this process could share; the next statement opens one."""
        if isinstance(self.store, TrialStore):
            self.store.disconnect()

    def _id(self, purpose: Purpose) -> int:
        return self.store.get_study_id_from_name(self.study(purpose).study_name)

    @property
    def is_file(self) -> bool:
        """Whether this is a file, so that only one machine can be at it."""
        return isinstance(self.backend, RDBStorage) and self.backend.engine.name == "sqlite"


def create(folder: Path, config: StudyConfig, directions: Sequence[str], data_fingerprint: str) -> Storage:
    """Make the storage's tables and studies, before any worker starts: in the folder, or where the environment says.

    The configuration and its hash are kept before the first run, so nobody can doubt that the margin came first.
    Where another launch was faster, its study is opened.

    Raises:
        ConfigError: The environment names a storage that cannot be used.
        StorageError: The storage cannot be written.
    """
    url = storageurl.of(folder)
    if url is None:
        unready = folder / f".study.db.{supervisor_id()}"
        try:
            _create(unready, config, directions, data_fingerprint)
            with suppress(FileExistsError):
                (folder / "study.db").hardlink_to(unready)  # whole or not at all, even if this launch is killed
        finally:
            unready.unlink(missing_ok=True)
    else:
        with database.one_at_a_time(url):
            _create(url, config, directions, data_fingerprint)
        storageurl.keep(folder, url)
    return load(folder, config.name, patient=True)


def _create(place: Path | URL, config: StudyConfig, directions: Sequence[str], data_fingerprint: str) -> None:
    store = database.connect(place, create=True, patient=True)
    if not _is_whole(store, config.name):
        search = _create_studies(store, config, directions).search
        search.set_user_attr("fingerprint", config.fingerprint())
        search.set_user_attr("data", data_fingerprint)
        search.set_user_attr(_WHOLE, config.semantic())
    store.disconnect()


def _is_whole(store: TrialStore, name: str) -> bool:
    """Whether a study has all it begins with: what is written last is there."""
    try:
        return _WHOLE in store.get_study_user_attrs(store.get_study_id_from_name(name))
    except KeyError:
        return False


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
    # load_if_exists: a launch that was killed may have left a part of it on a server
    search = optuna.create_study(
        storage=store, study_name=config.name, directions=aims, sampler=sampler, load_if_exists=True
    )
    confirm, probe = (
        optuna.create_study(
            storage=store, study_name=f"{config.name}:{purpose}", direction="maximize", load_if_exists=True
        )
        for purpose in ("confirm", "probe")
    )
    return Storage(store, search, confirm, probe)


def exists(folder: Path, name: str) -> bool:
    """Whether there is a study: in a folder, in the storage that the folder names or in the one of the environment.

    Raises:
        ConfigError: The environment names a storage that cannot be used.
        StorageError: The storage cannot be reached.
    """
    if os.path.lexists(folder / "study.db"):
        return True
    url = storageurl.of(folder)
    if url is None:
        return False
    with database.one_at_a_time(url):
        store = database.connect(url, create=True, patient=True)
    try:
        return _is_whole(store, name)
    finally:
        store.disconnect()


def note_settings(storage: Storage, config: StudyConfig) -> None:
    """Keep the whole configuration of a launch, for workers that have no folder to read it from."""
    storage.say(_SETTINGS, config.model_dump(mode="json"))


def kept_settings(storage: Storage) -> dict[str, Any] | None:
    """What `note_settings` kept; None before the first launch."""
    return storage.said().get(_SETTINGS)


def load(
    folder: Path,
    name: str,
    sampler: optuna.samplers.BaseSampler | None = None,
    supervisor: str | None = None,
    *,
    patient: bool = False,
) -> Storage:
    """Open an existing study.

    Args:
        folder: The study folder.
        name: The study's name.
        sampler: What proposes candidates; only a worker needs one.
        supervisor: Who tends this process if it is a worker; else it may be one itself.
        patient: Whether to wait for a server that is away, as `database.connect` does.

    Raises:
        StorageError: There is none, or it is not readable as one.
    """
    place = database.place_of(folder)
    store = database.connect(place, create=False, patient=patient)
    try:
        search = optuna.load_study(study_name=name, storage=store, sampler=sampler)
        confirm, probe = (
            optuna.load_study(study_name=f"{name}:{purpose}", storage=store) for purpose in ("confirm", "probe")
        )
    except KeyError:
        msg = f"{database.named(place)} holds no study named {name!r}; restore it or start anew in another folder"
        raise StorageError(msg) from None
    return Storage(store, search, confirm, probe, supervisor or supervisor_id())


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
