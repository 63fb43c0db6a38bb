"""Optuna's RDB storage, read and written a trial at a time and not a value at a time.

A trial that does not run is read once, and who asks for some states does not read the others. What a process notes of
a trial it carries out is written in one transaction: when it says so, or ends the trial.
"""

import copy
import sqlite3
import time
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from search import trialrows
from search.trialrows import Written

PATIENCE_SECONDS = 120.0
"""How long a server that cannot be reached is waited for."""
_PASSING = (None, "08000", "08003", "08006", "25P03", "40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03")
"""PostgreSQL's states for: no server, a connection lost or ended for idling, a deadlock, too many connections, a lock
not given in time, a server that stops or starts."""
_Result = TypeVar("_Result")


def patiently(
    ask: Callable[..., _Result],
    *args: Any,  # noqa: ANN401 # whatever it takes
    passes: Callable[[Exception], bool] | None = None,
) -> _Result:
    """What a database answers; while a server cannot be reached or is busy, it is asked again.

    Args:
        ask: What asks it.
        args: What that takes.
        passes: Whether a refusal is one that time may mend; where a connection is lost or busy unless given.
    """
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, 0.1
    while True:
        try:
            return ask(*args)
        except (DBAPIError, StorageInternalError) as error:
            if not (passes or _passes)(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _passes(error: Exception) -> bool:
    """Whether a refusal is one that time may mend; SQLite, which waits by itself, has none."""
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    if not isinstance(cause, OperationalError | InterfaceError) and not getattr(
        cause, "connection_invalidated", False
    ):
        return False
    told = cause.orig if isinstance(cause, DBAPIError) else None
    return not isinstance(told, sqlite3.Error) and getattr(told, "sqlstate", None) in _PASSING


class LostTrialError(Exception):
    """A trial that this process carried out has been given to another; what came of it is dropped."""


@dataclass
class _Held:
    """A trial this process carries out.

    Attributes:
        trial: As it is to be.
        owner: This process.
        unwritten: What of that the database does not know yet.
    """

    trial: FrozenTrial
    owner: str
    unwritten: Written = field(default_factory=Written)


class TrialStore(BaseStorage):
    """Optuna studies in a database, for one thread.

    Args:
        backend: Where they are.
    """

    def __init__(self, backend: RDBStorage) -> None:
        self.backend = backend
        weakref.finalize(self, _disconnect, backend)
        self.disconnect()
        event.listen(backend.engine, "connect", _wait_less)
        self._study_ids: dict[str, int] = {}
        self._read: dict[int, tuple[object, FrozenTrial]] = {}
        self._held: dict[int, _Held] = {}

    def disconnect(self) -> None:
        """Close every connection; the next statement opens one."""
        _disconnect(self.backend)

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
                with suppress(sqlite3.Error):  # as on a full disk; who needs it will say so
                    connection.execute("SELECT count(*) FROM studies").fetchone()
                yield
        finally:
            self._keep_journal(path, "DELETE")

    def _keep_journal(self, path: str, mode: Literal["WAL", "DELETE"]) -> None:
        """Say how SQLite is to keep transactions; it goes on as before where others hold the file or it cannot be."""
        self.disconnect()
        with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=3)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")

    def claim(self, study_id: int, owner: str) -> int | None:
        """The id of the first waiting trial, now running and held by this process; None when nothing waits.

        Args:
            study_id: Of the study.
            owner: This process, as it is noted with the trial and asked for with everything it writes.
        """
        broken = False

        def take(connection: Connection) -> FrozenTrial | None:
            nonlocal broken
            trial_id = trialrows.held_by(connection, study_id, owner) if broken else None
            broken = True  # should this be asked again, which may be after it was carried out
            trial_id = trial_id or trialrows.claim(connection, study_id, owner)
            return None if trial_id is None else next(trialrows.read(connection, [trial_id]))

        trial = self._do(take)
        if trial is None:
            return None
        self._held[trial._trial_id] = _Held(trial, owner)
        return trial._trial_id

    def write(self, trial_id: int) -> None:
        """Write what was noted of a trial this process carries out.

        Raises:
            LostTrialError: It no longer is this process's.
        """
        if held := self._held.get(trial_id):
            self._do(lambda connection: _write_held(connection, held))
            held.unwritten = Written()

    def release(self, trial_id: int, owner: str, detail: str, most_attempts: int | None) -> bool:
        """Put a running trial back into the queue, see `trialrows.release`; False where it is not this owner's."""

        def put_back(connection: Connection) -> bool:
            if not trialrows.is_held(connection, trial_id, owner):
                return False
            trialrows.release(connection, trial_id, detail, most_attempts)
            return True

        return self._do(put_back)

    def add(self, study_id: int, trials: Sequence[FrozenTrial], after: int | None = None) -> bool:
        """Add trials to the end of a study, all or none; none where it has not as many as `after` says."""
        return self._do(lambda connection: trialrows.add(connection, study_id, trials, after))

    def set_once(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # plain values
        """Give a study a user attribute unless it has it, whoever was faster."""
        with suppress(IntegrityError):
            self._do(lambda connection: trialrows.set_once(connection, study_id, key, value))

    def append(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # plain values
        """Add to a user attribute of a study that is a list, unless it is in there, whoever else does so."""
        self._do(lambda connection: trialrows.append(connection, study_id, key, value))

    def forget(self, study_id: int, key: str) -> None:
        """Remove a system attribute of a study."""
        self._do(lambda connection: trialrows.forget(connection, study_id, key))

    def _do(self, statements: Callable[[Connection], _Result]) -> _Result:
        """Carry statements out in one transaction; while a server cannot be reached, again and again for a while.

        A connection may break after the server has carried a transaction out: what is repeated must bear that.
        """

        def transact() -> _Result:
            with self.backend.engine.begin() as connection:
                return statements(connection)

        return patiently(transact)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See Optuna."""
        asked = [state for state in TrialState if states is None or state in states]

        def read(connection: Connection) -> dict[int, object]:
            stamps = trialrows.stamps(connection, study_id, asked)
            unread = [trial_id for trial_id, stamp in stamps.items() if not self._is_known(trial_id, stamp)]
            for trial in trialrows.read(connection, unread):
                self._read[trial._trial_id] = (stamps[trial._trial_id], trial)
            return stamps

        stamps = self._do(read)
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
        found = self._do(lambda connection: list(trialrows.read(connection, [trial_id])))
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
            patiently(self.backend.set_trial_param, trial_id, param_name, param_value_internal, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        if held := self._held.get(trial_id):
            held.trial.user_attrs[key] = held.unwritten.user_attrs[key] = value
        else:
            patiently(self.backend.set_trial_user_attr, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        if held := self._held.get(trial_id):
            held.trial.system_attrs[key] = held.unwritten.system_attrs[key] = value
        else:
            patiently(self.backend.set_trial_system_attr, trial_id, key, value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See Optuna; written at once, since others compare themselves with it."""
        if held := self._held.get(trial_id):
            held.trial.intermediate_values[step] = held.unwritten.steps[step] = intermediate_value
            self.write(trial_id)
        else:
            patiently(self.backend.set_trial_intermediate_value, trial_id, step, intermediate_value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See Optuna; of a trial this process carries out in one transaction with whatever is not written yet."""
        held = self._held.get(trial_id)
        if held is None:
            return patiently(self.backend.set_trial_state_values, trial_id, state, values)

        def finish(connection: Connection) -> None:
            # else the connection broke after all was written
            if not trialrows.has_ended(connection, trial_id, held.owner, state):
                _write_held(connection, held)
                trialrows.end(connection, trial_id, state, values)

        self._do(finish)
        del self._held[trial_id]  # not where it was lost: whatever is noted of it after all is refused too
        return True

    def get_study_id_from_name(self, study_name: str) -> int:
        """See Optuna."""
        if study_name not in self._study_ids:
            self._study_ids[study_name] = patiently(self.backend.get_study_id_from_name, study_name)
        return self._study_ids[study_name]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """See Optuna."""
        return patiently(self.backend.create_new_study, directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """See Optuna."""
        patiently(self.backend.delete_study, study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        patiently(self.backend.set_study_user_attr, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 # Optuna's signature
        """See Optuna."""
        patiently(self.backend.set_study_system_attr, study_id, key, value)

    def get_study_name_from_id(self, study_id: int) -> str:
        """See Optuna."""
        return patiently(self.backend.get_study_name_from_id, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See Optuna."""
        return patiently(self.backend.get_study_directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See Optuna."""
        return patiently(self.backend.get_study_user_attrs, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See Optuna."""
        return patiently(self.backend.get_study_system_attrs, study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """See Optuna."""
        return patiently(self.backend.get_all_studies)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See Optuna."""
        return patiently(self.backend.create_new_trial, study_id, template_trial)


def _disconnect(backend: RDBStorage) -> None:
    backend.remove_session()
    backend.engine.dispose()


def _write_held(connection: Connection, held: _Held) -> None:
    if not trialrows.is_held(connection, held.trial._trial_id, held.owner):
        msg = f"trial {held.trial.number} is no longer this worker's: it was silent for too long, or has been stopped"
        raise LostTrialError(msg)
    trialrows.write(connection, held.trial._trial_id, held.unwritten)


def _wait_less(connection: Any, _: object) -> None:  # noqa: ANN401 # of whichever driver
    """With a log beside the file a power cut cannot damage it, though no transaction waits for the disk."""
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA trusted_schema=OFF")  # what views and triggers of a stranger's file may call
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
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
