"""Trials as rows of the tables of Optuna's RDB storage: read and written table by table, in few statements.

Optuna's own reading builds an object for every row, which takes five times as long, and its own writing commits every
value by itself. Optuna migrates the schema and never breaks it within a major version.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table

_MOST_IDS = 500  # in one statement; databases limit how many values one takes

_STUDIES = models.StudyModel.metadata.tables["studies"]
_TRIALS = models.TrialModel.metadata.tables["trials"]
_PARAMS = models.TrialParamModel.metadata.tables["trial_params"]
_VALUES = models.TrialValueModel.metadata.tables["trial_values"]
_STEPS = models.TrialIntermediateValueModel.metadata.tables["trial_intermediate_values"]
_USER_ATTRS = models.TrialUserAttributeModel.metadata.tables["trial_user_attributes"]
_STUDY_ATTRS = models.StudyUserAttributeModel.metadata.tables["study_user_attributes"]
_STUDY_SYSTEM_ATTRS = models.StudySystemAttributeModel.metadata.tables["study_system_attributes"]
_SYSTEM_ATTRS = models.TrialSystemAttributeModel.metadata.tables["trial_system_attributes"]

_Rows = Mapping[int, Sequence[Any]]
_distribution = cache(json_to_distribution)
_as_json = cache(distribution_to_json)


@dataclass(frozen=True)
class Written:
    """What is to be written of one trial.

    Attributes:
        params: By name, the value as Optuna keeps it and its distribution.
        user_attrs: Plain values by key.
        system_attrs: Plain values by key.
        steps: Intermediate values by step.
    """

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, float] = field(default_factory=dict)


def read_study(connection: Connection, study_id: int) -> Iterator[FrozenTrial]:
    """A study's trials in the order of their numbers.

    States are read first, so that one that is finished is never without what its last run gave.
    """
    return _read(connection, _TRIALS.c.study_id == study_id)


def read(connection: Connection, ids: Sequence[int]) -> Iterator[FrozenTrial]:
    """The trials of some ids; their states first, as in `read_study`."""
    for start in range(0, len(ids), _MOST_IDS):
        yield from _read(connection, _TRIALS.c.trial_id.in_(ids[start : start + _MOST_IDS]))


def _read(connection: Connection, chosen: sqlalchemy.ColumnElement[bool]) -> Iterator[FrozenTrial]:
    columns = (each for each in _TRIALS.c if each.name != "study_id")
    found = connection.execute(sqlalchemy.select(*columns).where(chosen).order_by(_TRIALS.c.number)).fetchall()
    parts = [_rows(connection, each, chosen) for each in (_PARAMS, _VALUES, _STEPS, _USER_ATTRS, _SYSTEM_ATTRS)]
    for trial in found:
        yield _trial(trial, *(rows.get(trial.trial_id, ()) for rows in parts))


def _rows(connection: Connection, table: Table, chosen: sqlalchemy.ColumnElement[bool]) -> _Rows:
    """The rows of one table by trial, in the order they were written."""
    own = table.join(_TRIALS, _TRIALS.c.trial_id == table.c.trial_id)
    query = sqlalchemy.select(table).select_from(own).where(chosen).order_by(next(iter(table.primary_key)))
    found = defaultdict(list)
    for row in connection.execute(query):
        found[row.trial_id].append(row)
    return found


def _trial(trial: Any, params: Any, values: Any, steps: Any, told: Any, kept: Any) -> FrozenTrial:  # noqa: ANN401 (rows)
    distributions = {row.param_name: _distribution(row.distribution_json) for row in params}
    value_of = models.TrialValueModel.stored_repr_to_value
    step_value_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    ordered = sorted(values, key=lambda row: row.objective)
    return FrozenTrial(
        number=trial.number,
        state=trial.state,
        value=None,
        values=[value_of(row.value, row.value_type) for row in ordered] or None,
        datetime_start=_local(trial.datetime_start),
        datetime_complete=_local(trial.datetime_complete),
        params={row.param_name: distributions[row.param_name].to_external_repr(row.param_value) for row in params},
        distributions=distributions,
        user_attrs={row.key: json.loads(row.value_json) for row in told},
        system_attrs={row.key: json.loads(row.value_json) for row in kept},
        intermediate_values={
            row.step: step_value_of(row.intermediate_value, row.intermediate_value_type) for row in steps
        },
        trial_id=trial.trial_id,
    )


def _local(kept: datetime | None) -> datetime | None:
    """Optuna keeps UTC and shows the time of the place, both without saying so."""
    return kept and kept.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _utc(shown: datetime | None) -> datetime | None:
    return shown and shown.astimezone(UTC).replace(tzinfo=None)


def stamps(connection: Connection, study_id: int, states: Iterable[TrialState]) -> dict[int, object]:
    """By id, what changes whenever a trial that does not run does: of a study's trials in these states, by number."""
    found = connection.execute(
        sqlalchemy.select(_TRIALS.c.trial_id, _TRIALS.c.state, _TRIALS.c.datetime_start)
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state.in_(list(states)))
        .order_by(_TRIALS.c.trial_id)
    )
    return {trial_id: stamp for trial_id, *stamp in found}


def claim(connection: Connection, study_id: int, owner: str) -> int | None:
    """Make a study's first waiting trial running and somebody's own; its id, None when nothing waits.

    One statement finds and takes it. Optuna's own transition reads the state before it writes it, and SQLite lets two
    workers do so at once. A server passes over trials that others are just taking; SQLite has one writer and needs no
    such clause.
    """
    waiting = (_TRIALS.c.study_id == study_id) & (_TRIALS.c.state == TrialState.WAITING)
    first = sqlalchemy.select(_TRIALS.c.trial_id).where(waiting).order_by(_TRIALS.c.trial_id).limit(1)
    taken: int | None = connection.execute(
        _TRIALS.update()
        .where(_TRIALS.c.trial_id == first.with_for_update(skip_locked=True).scalar_subquery())
        .values(state=TrialState.RUNNING, datetime_start=_utc(datetime.now()))
        .returning(_TRIALS.c.trial_id)
    ).scalar()
    if taken is not None:
        attempts = _user_attr(connection, taken, "attempts") or 0
        write(connection, taken, Written(user_attrs={"owner": owner, "attempts": attempts + 1}))
    return taken


def held_by(connection: Connection, study_id: int, owner: str) -> int | None:
    """The id of a study's trial that runs as somebody's own; None where there is none."""
    own = (_USER_ATTRS.c.key == "owner") & (_USER_ATTRS.c.value_json == json.dumps(owner))
    running = (_TRIALS.c.study_id == study_id) & (_TRIALS.c.state == TrialState.RUNNING)
    trials = _TRIALS.join(_USER_ATTRS, _TRIALS.c.trial_id == _USER_ATTRS.c.trial_id)
    return connection.execute(sqlalchemy.select(_TRIALS.c.trial_id).select_from(trials).where(own & running)).scalar()


def has_ended(connection: Connection, trial_id: int, owner: str, state: TrialState) -> bool:
    """Whether a trial has come to this end by this owner."""
    ended = (_TRIALS.c.trial_id == trial_id) & (_TRIALS.c.state == state)
    found = state.is_finished() and connection.execute(sqlalchemy.select(_TRIALS.c.trial_id).where(ended)).first()
    return bool(found) and _user_attr(connection, trial_id, "owner") == owner


def is_held(connection: Connection, trial_id: int, owner: str) -> bool:
    """Whether a trial runs and is somebody's own; if so it stays so until this transaction ends.

    Whoever was silent for too long, and lost a trial by that, must not write to it when it wakes.
    """
    running = (_TRIALS.c.trial_id == trial_id) & (_TRIALS.c.state == TrialState.RUNNING)
    locked = connection.execute(_TRIALS.update().where(running).values(state=TrialState.RUNNING))
    # read by a statement of its own: one that waited for the row may see the rest as it was before
    return locked.rowcount == 1 and _user_attr(connection, trial_id, "owner") == owner


def _user_attr(connection: Connection, trial_id: int, key: str) -> Any:  # noqa: ANN401 (whatever was kept)
    named = (_USER_ATTRS.c.trial_id == trial_id) & (_USER_ATTRS.c.key == key)
    found = connection.execute(sqlalchemy.select(_USER_ATTRS.c.value_json).where(named)).scalar()
    return None if found is None else json.loads(found)


def release(connection: Connection, trial_id: int, detail: str, most_attempts: int | None) -> None:
    """Put a trial that runs back into the queue, or give it up after so many attempts.

    Args:
        connection: In whose transaction it is held.
        trial_id: Which.
        detail: What happened, kept with the trial.
        most_attempts: After how many it is given up; None where this one is not to count.
    """
    attempts = _user_attr(connection, trial_id, "attempts") or 0
    noted: dict[str, Any] = {"detail": detail}
    given_up = most_attempts is not None and attempts >= most_attempts
    if most_attempts is None:
        noted["attempts"] = max(0, attempts - 1)
    elif given_up:
        noted["reason"] = "crash"
    write(connection, trial_id, Written(user_attrs=noted))
    end(connection, trial_id, TrialState.FAIL if given_up else TrialState.WAITING, None)


def write(connection: Connection, trial_id: int, written: Written) -> None:
    """Write what is new of a trial, in the place of what was there under the same names."""
    for table, attrs in ((_USER_ATTRS, written.user_attrs), (_SYSTEM_ATTRS, written.system_attrs)):
        if attrs:
            connection.execute(table.delete().where(table.c.trial_id == trial_id, table.c.key.in_(list(attrs))))
    if written.steps:
        known = (_STEPS.c.trial_id == trial_id) & _STEPS.c.step.in_(list(written.steps))
        connection.execute(_STEPS.delete().where(known))
    _insert_parts(connection, {trial_id: written})


def end(connection: Connection, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
    """Give a trial that runs another state, and its values if it has any; False where it does not run."""
    ended = _utc(datetime.now()) if state.is_finished() else None
    running = (_TRIALS.c.trial_id == trial_id) & (_TRIALS.c.state == TrialState.RUNNING)
    changed = connection.execute(_TRIALS.update().where(running).values(state=state, datetime_complete=ended))
    if changed.rowcount == 1 and values is not None:
        _insert(connection, _VALUES, _value_rows(trial_id, values))
    return changed.rowcount == 1


def add(connection: Connection, study_id: int, trials: Sequence[FrozenTrial], after: int | None) -> bool:
    """Add trials to the end of a study; the study's row is locked first, so that nobody else numbers trials.

    Returns:
        False, with none added, where `after` is given and the study does not have that many trials.
    """
    _lock(connection, study_id)
    own = _TRIALS.c.study_id == study_id
    known = connection.execute(sqlalchemy.select(sqlalchemy.func.count()).where(own)).scalar_one()
    if after not in (None, known):
        return False
    _insert(
        connection,
        _TRIALS,
        [
            {
                "number": number,
                "study_id": study_id,
                "state": trial.state,
                "datetime_start": _utc(trial.datetime_start),
                "datetime_complete": _utc(trial.datetime_complete),
            }
            for number, trial in enumerate(trials, start=known)
        ],
    )
    added = own & (_TRIALS.c.number >= known)
    ids = connection.execute(sqlalchemy.select(_TRIALS.c.trial_id).where(added).order_by(_TRIALS.c.number)).scalars()
    by_id = dict(zip(ids, trials, strict=True))
    _insert_parts(connection, {trial_id: _written(trial) for trial_id, trial in by_id.items()})
    values = [_value_rows(trial_id, trial.values) for trial_id, trial in by_id.items() if trial.values is not None]
    _insert(connection, _VALUES, [row for rows in values for row in rows])
    return True


def set_once(connection: Connection, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 (plain values)
    """Give a study a user attribute that it does not have.

    Raises:
        IntegrityError: It has.
    """
    _insert(connection, _STUDY_ATTRS, [{"study_id": study_id, "key": key, "value_json": json.dumps(value)}])


def append(connection: Connection, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 (plain values)
    """Add to the end of a study's user attribute, which is a list, unless it is in there.

    The study's row is locked first, so that nobody else adds between reading and writing.
    """
    _lock(connection, study_id)
    named = (_STUDY_ATTRS.c.study_id == study_id) & (_STUDY_ATTRS.c.key == key)
    # read by a statement of its own, see `is_held`
    found = connection.execute(sqlalchemy.select(_STUDY_ATTRS.c.value_json).where(named)).scalar()
    known = [] if found is None else json.loads(found)
    if value not in known:
        connection.execute(_STUDY_ATTRS.delete().where(named))
        set_once(connection, study_id, key, [*known, value])


def _lock(connection: Connection, study_id: int) -> None:
    """Let others who want to change a study wait until this transaction ends."""
    connection.execute(
        _STUDIES.update().where(_STUDIES.c.study_id == study_id).values(study_name=_STUDIES.c.study_name)
    )


def forget(connection: Connection, study_id: int, key: str) -> None:
    """Remove a system attribute of a study."""
    named = (_STUDY_SYSTEM_ATTRS.c.study_id == study_id) & (_STUDY_SYSTEM_ATTRS.c.key == key)
    connection.execute(_STUDY_SYSTEM_ATTRS.delete().where(named))


def _written(trial: FrozenTrial) -> Written:
    params = {
        name: (distribution.to_internal_repr(trial.params[name]), distribution)
        for name, distribution in trial.distributions.items()
    }
    return Written(params, trial.user_attrs, trial.system_attrs, trial.intermediate_values)


def _value_rows(trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
    rows = []
    for objective, each in enumerate(values):
        value, kind = models.TrialValueModel.value_to_stored_repr(each)
        rows.append({"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind})
    return rows


def _insert_parts(connection: Connection, written: Mapping[int, Written]) -> None:
    params = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": _as_json(distribution),
        }
        for trial_id, each in written.items()
        for name, (value, distribution) in each.params.items()
    ]
    _insert(connection, _PARAMS, params)
    _insert(
        connection, _STEPS, [row for trial_id, each in written.items() for row in _step_rows(trial_id, each.steps)]
    )
    for table, attrs in (
        (_USER_ATTRS, {trial_id: each.user_attrs for trial_id, each in written.items()}),
        (_SYSTEM_ATTRS, {trial_id: each.system_attrs for trial_id, each in written.items()}),
    ):
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for trial_id, each in attrs.items()
            for key, value in each.items()
        ]
        _insert(connection, table, rows)


def _step_rows(trial_id: int, steps: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    for step, each in steps.items():
        value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(each)
        yield {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": kind,
        }


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), list(rows))
