"""Reads a study as its database has it, and tells cheaply whether it has changed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from sqlalchemy import Connection

from search.study import PURPOSES, Purpose, Storage
from search.trialrows import read_study

# One row for each state of each study, and one for each note: what changes when anything shown does.
_TRIALS = sqlalchemy.text(
    "SELECT study_id, state, COUNT(*), MAX(trial_id), MAX(datetime_complete) FROM trials GROUP BY study_id, state"
)
_NOTES = sqlalchemy.text("SELECT study_id, key, value_json FROM study_system_attributes WHERE key LIKE '%note_ver'")
_ATTRIBUTES = sqlalchemy.text(
    "SELECT study_id, key, value_json FROM study_user_attributes WHERE key IN ('cases', 'annotated', 'explorations')"
)


@dataclass(frozen=True)
class Seen:
    """A study as its storage has it.

    Attributes:
        studies: By purpose, the study with its attributes.
        trials: By purpose, its trials in the order of their numbers.
    """

    studies: Mapping[Purpose, FrozenStudy]
    trials: Mapping[Purpose, Sequence[FrozenTrial]]


def signature(storage: Storage) -> object:
    """What changes when the study does, told by the database in about a millisecond."""
    with _connected(storage) as connection:
        return [connection.execute(each).fetchall() for each in (_TRIALS, _NOTES, _ATTRIBUTES)]


def read(storage: Storage) -> Seen:
    """The study at this moment."""
    known = {each.study_name: each for each in storage.backend.get_all_studies()}
    studies = {purpose: known[storage.study(purpose).study_name] for purpose in PURPOSES}
    with _connected(storage) as connection:
        trials = {each: list(read_study(connection, studies[each]._study_id)) for each in PURPOSES}
    return Seen(studies, trials)


@contextmanager
def _connected(storage: Storage) -> Iterator[Connection]:
    assert isinstance(storage.backend, RDBStorage)  # as what lies in a study folder is
    with storage.backend.engine.connect() as connection:
        yield connection
