"""Optuna's RDB storage, read and written a trial at a time and not a value at a time.

A trial that does not run is read once, and who asks for some states does not read the others. What a process notes of
a trial it carries out is written in one transaction: when it says so, or ends the trial.
"""

import copy
import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from search import trialrows
from search.trialrows import Written


@dataclass
class _Held:
    """A trial this process carries out.

    Attributes:
        trial: As it is to be.
        unwritten: What of that the database does not know yet.
    """

    trial: FrozenTrial
    unwritten: Written = field(default_factory=Written)


class TrialStore(BaseStorage):
    """Optuna studies in a database, for one thread.

    Args:
        backend: Where they are.
    """

    def __init__(self, backend: RDBStorage) -> None:
        self.backend = backend
        self.disconnect()
        event.listen(backend.engine, "connect", _wait_less)
        self._study_ids: dict[str, int] = {}
        self._read: dict[int, tuple[object, FrozenTrial]] = {}
        self._held: dict[int, _Held] = {}

    def disconnect(self) -> None:
        """Close every connection; the next statement opens one."""
        self.backend.remove_session()
        self.backend.engine.dispose()

    @contextmanager
    def written_fast(self) -> Iterator[None]:
        """In here, SQLite appends to a log beside its file, so that no transaction waits for the disk.

        Processes may die as they like. A machine that dies takes the last transactions with it, each of them whole:
        what they had recorded runs or waits again. Afterwards the study is one file, unless somebody still reads it.
        """
        path = self.backend.engine.url.database
        if path is None or self.backend.engine.name != "sqlite":
            yield
            return
        self._keep_journal(path, "WAL")
        try:
            # kept open: who closes the file last writes the log into it and waits for the disk
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT count(*) FROM studies").fetchone()
                yield
        finally:
            self._keep_journal(path, "DELETE")

    def _keep_journal(self, path: str, mode: Literal["WAL", "DELETE"]) -> None:
        """Say how SQLite is to keep transactions; it goes on as before where others hold the file or it cannot be."""
        self.disconnect()
        with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=3)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")

    def claim(self, study_id: int, owner: int) -> int | None:
        """The id of the first waiting trial, now running and held by this process; None when nothing waits.

        Args:
            study_id: Of the study.
            owner: This process, as it is noted with the trial.
        """
        while True:
            with self.backend.engine.connect() as connection:
                first = trialrows.first_waiting(connection, study_id)
            if first is None or self.take(first, owner):
                return first

    def take(self, trial_id: int, owner: int) -> bool:
        """Make a waiting trial running and ours in one transaction; False when another worker was faster."""
        with self.backend.engine.begin() as connection:
            if not trialrows.take(connection, trial_id, owner):
                return False
            (trial,) = trialrows.read(connection, [trial_id])
        self._held[trial_id] = _Held(trial)
        return True

    def write(self, trial_id: int) -> None:
        """Write what was noted of a trial this process carries out."""
        if held := self._held.get(trial_id):
            with self.backend.engine.begin() as connection:
                trialrows.write(connection, trial_id, held.unwritten)
            held.unwritten = Written()

    def add(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Add trials to the end of a study, all or none."""
        with self.backend.engine.begin() as connection:
            trialrows.add(connection, study_id, trials)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See Optuna."""
        asked = [state for state in TrialState if states is None or state in states]
        with self.backend.engine.connect() as connection:
            stamps = trialrows.stamps(connection, study_id, asked)
            unread = [trial_id for trial_id, stamp in stamps.items() if not self._is_known(trial_id, stamp)]
            for trial in trialrows.read(connection, unread):
                self._read[trial._trial_id] = (stamps[trial._trial_id], trial)
        found = [self._read[trial_id][1] for trial_id in stamps]
        found = [trial for trial in found if states is None or trial.state in states]  # one may have changed between
        return copy.deepcopy(found) if deepcopy else found

    def _is_known(self, trial_id: int, stamp: object) -> bool:
        known = self._read.get(trial_id)
        return known is not None and known[0] == stamp and known[1].state is not TrialState.RUNNING

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See Optuna."""
        if held := self._held.get(trial_id):
            return _copied(held.trial)
        with self.backend.engine.connect() as connection:
            found = list(trialrows.read(connection, [trial_id]))
        if not found:
            msg = f"no trial has the id {trial_id}"
            raise KeyError(msg)
        return found[0]

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """See Optuna."""
        if held := self._held.get(trial_id):
            held.trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            held.trial.distributions[param_name] = distribution
            held.unwritten.params[param_name] = param_value_internal, distribution
        else:
            self.backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        if held := self._held.get(trial_id):
            held.trial.user_attrs[key] = held.unwritten.user_attrs[key] = value
        else:
            self.backend.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        if held := self._held.get(trial_id):
            held.trial.system_attrs[key] = held.unwritten.system_attrs[key] = value
        else:
            self.backend.set_trial_system_attr(trial_id, key, value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See Optuna; written at once, since others compare themselves with it."""
        if held := self._held.get(trial_id):
            held.trial.intermediate_values[step] = held.unwritten.steps[step] = intermediate_value
            self.write(trial_id)
        else:
            self.backend.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See Optuna; of a trial this process carries out in one transaction with whatever is not written yet."""
        held = self._held.get(trial_id)
        if held is None:
            return self.backend.set_trial_state_values(trial_id, state, values)
        with self.backend.engine.begin() as connection:
            trialrows.write(connection, trial_id, held.unwritten)
            if not trialrows.end(connection, trial_id, state, values):
                msg = f"trial {held.trial.number} is carried out by nobody any more, so it cannot end"
                raise UpdateFinishedTrialError(msg)
        del self._held[trial_id]
        return True

    def get_study_id_from_name(self, study_name: str) -> int:
        """See Optuna."""
        if study_name not in self._study_ids:
            self._study_ids[study_name] = self.backend.get_study_id_from_name(study_name)
        return self._study_ids[study_name]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """See Optuna."""
        return self.backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """See Optuna."""
        self.backend.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        self.backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        self.backend.set_study_system_attr(study_id, key, value)

    def get_study_name_from_id(self, study_id: int) -> str:
        """See Optuna."""
        return self.backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See Optuna."""
        return self.backend.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See Optuna."""
        return self.backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See Optuna."""
        return self.backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """See Optuna."""
        return self.backend.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See Optuna."""
        return self.backend.create_new_trial(study_id, template_trial)


def _wait_less(connection: Any, _: object) -> None:  # noqa: ANN401 # of whichever driver
    """With a log beside the file a power cut cannot damage it, though no transaction waits for the disk."""
    if isinstance(connection, sqlite3.Connection) and connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        connection.execute("PRAGMA synchronous=NORMAL")
        # The log is taken over once, at the end, by one: SQLite below 3.51.3 can err where several do it at once.
        connection.execute("PRAGMA wal_autocheckpoint=0")


def _copied(trial: FrozenTrial) -> FrozenTrial:
    """A trial that does not change with what is noted of another."""
    copied = copy.copy(trial)
    copied.params, copied.distributions = dict(trial.params), dict(trial.distributions)
    copied._user_attrs, copied._system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    copied.intermediate_values = dict(trial.intermediate_values)
    return copied
