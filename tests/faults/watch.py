"""What a storage was seen to acknowledge while its study was broken, to hold what is there later against it."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy
from faults.studies import NAME, Ground
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from search import storageurl, trialrows
from search.study import PURPOSES, Purpose

Trials = Mapping[Purpose, Sequence[FrozenTrial]]


@dataclass
class Acknowledged:
    """What was seen.

    Attributes:
        ends: Every different end that a trial was seen to have, by purpose and number.
        results: What each piece of work gave, the first time that it was seen; of several studies with one truth.
        steps: How many changes of a trial's state were seen.
    """

    ends: dict[tuple[Purpose, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    results: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    _states: dict[tuple[Purpose, int], tuple[str, int]] = field(default_factory=dict)

    def note(self, found: Trials) -> None:
        """Note how trials stand."""
        for purpose, trials in found.items():
            for trial in trials:
                key = purpose, trial.number
                state = trial.state.name, trial.user_attrs.get("attempts", 0)
                self.steps += self._states.get(key, ("WAITING", 0)) != state
                self._states[key] = state
                if trial.state.is_finished() and (end := end_of(trial)) not in self.ends[key]:
                    self.ends[key].append(end)
        for key, result in results(found):
            self.results.setdefault(key, result)


def end_of(trial: FrozenTrial) -> str:
    """All there is to a trial that has ended, as text."""
    values = {"state": trial.state.name, "values": trial.values, "params": trial.params, **trial.user_attrs}
    values |= {"started": trial.datetime_start, "ended": trial.datetime_complete}
    return json.dumps(values, sort_keys=True, default=str)


def results(found: Trials) -> Iterator[tuple[str, str]]:
    """What each piece of work gave: which schedule a proposal became, how often each run was right."""
    for purpose, trials in found.items():
        for trial in trials:
            told = trial.user_attrs
            where = [purpose, told.get("machine"), told.get("schedule")]
            if "schedule" in told and "proposal" in told:
                yield json.dumps(["proposal", told["machine"], told["proposal"]]), told["schedule"]
            fidelity = [told.get(key) for key in ("split", "epochs", "share", "learning_rate_factor")]
            for run in told.get("runs", ()) if trial.state.is_finished() else ():
                kept = {key: run.get(key) for key in ("accuracy", "loss", "epochs", "reason")}
                yield json.dumps([*where, *fidelity, run["seed"]]), json.dumps(kept)


class Watch:
    """A look at a study's storage from outside, past all that its own processes remember.

    Args:
        at: Where the study is; need not be there yet.
        known: What other studies of the same truth gave.
    """

    def __init__(self, at: Ground, known: dict[str, str] | None = None) -> None:
        self._at = at
        self.acknowledged = Acknowledged(results={} if known is None else known)
        url = at.environment.get(storageurl.VARIABLE) or f"sqlite:///{at.folder / 'study.db'}"
        wait = {} if at.server else {"timeout": 5}
        self._engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=wait)

    def look(self) -> Trials:
        """Note how all trials stand now; nothing where the storage is not there, or cannot be read just now."""
        if not self._at.server and not (self._at.folder / "study.db").exists():
            return {}
        try:
            with self._engine.begin() as connection:
                found = dict(_read(connection))
        except SQLAlchemyError:
            return {}
        self.acknowledged.note(found)
        return found


def _read(connection: sqlalchemy.Connection) -> Iterable[tuple[Purpose, list[FrozenTrial]]]:
    query = sqlalchemy.text("SELECT study_id FROM studies WHERE study_name = :name")
    for purpose in PURPOSES:
        name = NAME if purpose == "search" else f"{NAME}:{purpose}"
        study_id: Any = connection.execute(query, {"name": name}).scalar()
        if study_id is not None:
            yield purpose, list(trialrows.read_study(connection, study_id))
