"""Refuses a study whose records this program did not write: it may be a stranger's, and is data to be looked at first.

Owns what must be true of records before anything is made of them: types, ranges, texts that are names and not more.
What else is kept with a trial is nobody's business here.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from search import configfile
from search.cases import Case, stored_cases, stored_explorations
from search.config import StudyConfig
from search.cost import Budget
from search.database import guarded, named, place_of
from search.errors import ConfigError, StorageError
from search.runrecord import unpack_counts
from search.schedule import FilterSchedule
from search.study import PURPOSES, Purpose, Storage, load
from search.trust import enter

_NOTE = "dashboard:note_str:"
_LARGEST_ENVIRONMENT = 2**20
_MOST_SHOWN = 80  # characters of what came


def _is_schedule(text: str) -> str:
    try:
        FilterSchedule.parse(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _is_budget(text: str) -> str:
    Budget.parse(text)
    return text


Count = Annotated[int, Field(ge=0, le=2**80)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Origin = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.()-]{1,600}$")]
"""A rule or what proposed a schedule. A pattern's `$` is the text's very end here."""
Word = Annotated[str, Field(pattern=r"^[A-Za-z_ -]{1,40}$")]
ScheduleText = Annotated[str, AfterValidator(_is_schedule)]
BudgetText = Annotated[str, AfterValidator(_is_budget)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Run(_Record):
    seed: Count
    wall_seconds: Seconds
    accuracy: Fraction | None = None
    reason: Word | None = None
    detail: str | None = None
    loss: float | None = None
    epochs: Count | None = None
    replicas: Count | None = None
    peak_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None

    @model_validator(mode="after")
    def _ended(self) -> Self:
        if (self.accuracy is None) is (self.reason is None):
            msg = "a run has either an accuracy or a reason for having none"
            raise ValueError(msg)
        return self


class _Costs(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    params: Count | None = None
    macs: Count | None = None
    activations: Count | None = None
    memory: Count | None = None


class _Job(_Record):
    runs: list[_Run] = []
    reason: Word | None = None
    detail: str | None = None
    attempts: Count = 0
    did_not_fit: Count | None = None


class _Candidate(_Job):
    proposal: Count
    origin: Origin
    budget: BudgetText
    schedule: ScheduleText | None = None
    costs: _Costs | None = None


class _Complete(_Candidate):
    runs: Annotated[list[_Run], Field(min_length=1)]
    schedule: ScheduleText
    costs: _Costs


class _Confirmation(_Job):
    schedule: ScheduleText
    first: Annotated[int, Field(ge=0, le=10**7)]
    count: Annotated[int, Field(ge=1, le=10**6)]
    correct: str | None = None


class _Probe(_Job):
    schedule: ScheduleText
    first: Annotated[int, Field(ge=0, le=10**7)]
    count: Annotated[int, Field(ge=1, le=10**6)]
    split: Literal["validation", "test"]
    epochs: Annotated[int, Field(ge=1, le=10**7)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    learning_rate_factor: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class _Moment(_Record):
    phase: Literal["search", "confirm", "probe"]
    runs: Count
    idle: bool


class _Annotated(_Record):
    moment: _Moment
    note: str
    plots: dict[str, str]
    whole: bool


class _Search(_Record):
    config: dict[str, Any]
    fingerprint: str
    data: str
    done: bool = False
    annotated: _Annotated | None = None


class _Hardware(_Record):
    processor: str
    cores: Count
    device: str
    workers: Count


class _Environment(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    filter_search: str = ""
    python: str = ""
    packages: dict[str, str] = {}
    hardware: _Hardware | None = None
    commit: str | None = None
    started: str | None = None
    command: str | None = None


def load_kept(where: Path, config: StudyConfig, *, patient: bool = False) -> Storage:
    """The study in a folder, its records looked at; see `study.load`.

    Args:
        where: The folder.
        config: The study's configuration.
        patient: Whether to wait for a server that is away.

    Raises:
        ConfigError: The environment names another storage than the folder, or one that cannot be used.
        StorageError: There is none, it cannot be read, or its records are not of the form that is written here.
    """
    place_of(where)  # apart: what it refuses is no record's fault
    try:
        with guarded(where):
            storage = load(where, config.name, patient=patient)
            check_records(storage, len(config.filters.stages))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _foreign(where, f"{place}: {first['msg']}, not {_shown(first['input'])}") from None
    # of the database's rows: a state there is none of, JSON that is none or nests too deeply, dates, distributions
    except (ConfigError, LookupError, ValueError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise _foreign(where, f"{type(error).__name__}: {_shown(str(error))}") from None
    return storage


def look_at(study: str) -> tuple[StudyConfig, Storage, Path]:
    """A study's configuration, its storage and its folder, for what needs neither its code nor its data.

    Args:
        study: Its folder, or its name below `studies/`.

    Raises:
        ConfigError: Its configuration cannot be used, or is not the one it was made by.
        StorageError: See `load_kept`.
    """
    where = enter(study)
    config = configfile.read(where / "config.yaml")
    storage = load_kept(where, config)
    configfile.refuse_another(storage.search.user_attrs["config"], config, where)
    return config, storage, where


def check_records(storage: Storage, stages: int) -> None:
    """Look at everything a study has.

    Args:
        storage: It.
        stages: How many its schedules have.

    Raises:
        ValueError: Something is not of the form that is written here; where it is of a wrong type or the database
            itself holds what cannot be read, other errors come.
    """
    for purpose in PURPOSES:
        for trial in storage.trials(purpose):
            _check_trial(trial, purpose, stages)
    _Search.model_validate(storage.search.user_attrs)
    _check_notes(storage.store.get_study_system_attrs(storage.search._study_id))
    cases = stored_cases(storage) or []
    for case in (*cases, *(case for each in stored_explorations(storage) for case in each.cases)):
        _check_case(case, stages)
    correct = [job.user_attrs["correct"] for job in storage.trials("confirm") if "correct" in job.user_attrs]
    if len({len(unpack_counts(each)) for each in correct}) > 1:
        msg = "confirmation runs were scored on different numbers of test images"
        raise ValueError(msg)


def _check_trial(trial: FrozenTrial, purpose: Purpose, stages: int) -> None:
    complete, attrs = trial.state is TrialState.COMPLETE, trial.user_attrs
    match purpose:
        case "search":
            (_Complete if complete else _Candidate).model_validate(attrs)
        case "confirm":
            _Confirmation.model_validate(attrs)
        case "probe":
            _Probe.model_validate(attrs)
    if type(trial.number) is not int or trial.number < 0:
        msg = f"a trial has the number {trial.number!r}"
    elif "schedule" in attrs and attrs["schedule"].count("-") != stages - 1:
        msg = f"trial {trial.number} has the schedule {attrs['schedule']}, of other than {stages} stages"
    elif complete and not np.isfinite(trial.values or np.nan).all():
        msg = f"trial {trial.number} is complete with the values {trial.values}"
    elif complete and purpose == "search" and not any("accuracy" in run for run in attrs["runs"]):
        msg = f"trial {trial.number} is complete without an accuracy"
    elif complete and purpose != "search" and len(attrs.get("runs", ())) != attrs["count"]:
        msg = f"job {trial.number} is complete with other than {attrs['count']} runs"
    elif trial.state is TrialState.FAIL and not isinstance(attrs.get("detail"), str):
        msg = f"trial {trial.number} failed and does not say why"
    else:
        return
    raise ValueError(msg)


def _check_case(case: Case, stages: int) -> None:
    schedules = [case.schedule, *(each.schedule for each in case.challengers)]
    if any(len(each) != stages for each in schedules):
        msg = f"a case has schedules of other than {stages} stages"
        raise ValueError(msg)
    for each in case.challengers:
        _Named(origin=each.origin)


class _Named(_Record):
    origin: Origin


def _check_notes(kept: Mapping[str, Any]) -> None:
    """Of what Optuna's dashboard keeps, the note: it is read before it is written again."""
    parts = {key: value for key, value in kept.items() if key.startswith(_NOTE)}
    wrong: Iterable[Any] = [value for value in parts.values() if not isinstance(value, str)]
    if set(parts) != {f"{_NOTE}{place}" for place in range(len(parts))} or list(wrong):
        msg = "the study's note is not whole"
        raise ValueError(msg)
    if type(kept.get("dashboard:note_ver", 0)) is not int:
        msg = "the study's note has no version"
        raise ValueError(msg)


def environment_of(where: Path) -> dict[str, Any]:
    """What environment.json says; empty when it is missing or none of ours, which must not cost the report."""
    try:
        with (where / "environment.json").open("rb") as file:
            values = json.loads(file.read(_LARGEST_ENVIRONMENT))
        _Environment.model_validate(values)
    except (OSError, ValueError, RecursionError):
        return {}
    found: dict[str, Any] = values
    return found


def _shown(came: object) -> str:
    text = repr(came) if not isinstance(came, str) else came
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _foreign(where: Path, what: str) -> StorageError:
    place = named(place_of(where))
    return StorageError(
        f"{place} holds what filter-search does not write ({what}); restore a copy of the study, or have it sent anew"
    )
