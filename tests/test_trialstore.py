"""What SQLite's file and log hold while a study runs, should the power fail."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from optuna.trial import TrialState

from search import queues, study
from search.config import StudyConfig
from search.cost import Budget
from search.leases import Leases
from search.queues import Proposal

NAME = "cut"
_HEADER, _FRAME = 32, 24 + 4096  # bytes of the log's header, and of a page in it with its own


def settings(storage):
    """How SQLite keeps a transaction, on a connection as the store opens them."""
    with storage.backend.engine.connect() as connection:
        asked = ("journal_mode", "synchronous", "wal_autocheckpoint")
        return [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in asked]


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "study").mkdir()
    return study.create(tmp_path / "study", StudyConfig(name=NAME), ("maximize",), "data")


def test_a_transaction_waits_for_the_disk_or_goes_to_a_log_of_which_nothing_is_taken_over_before_the_end(storage):
    full, normal = 2, 1
    assert settings(storage)[:2] == ["delete", full]
    with storage.written_fast():
        assert settings(storage) == ["wal", normal, 0]
    assert settings(storage)[:2] == ["delete", full]


@pytest.fixture
def running(storage, tmp_path):
    """A study's files while it runs, and all that they said, a transaction at a time."""
    folder = tmp_path / "study"

    def look():
        said.append([(each.state, each.values, each.user_attrs) for each in storage.trials("search")])

    said = []
    look()
    with storage.written_fast():
        queues.enqueue_missing(storage, [Proposal("band", Budget("params", 1500), {})] * 3)
        look()
        for number in range(3):
            trial = storage.claim("search")
            look()
            trial.set_user_attr("runs", [{"seed": number, "accuracy": 0.5}])
            trial.set_user_attr("machine", "a")
            if number < 2:
                storage.search.tell(trial, 0.5)
            else:
                storage.write(trial)
            look()
        log = (folder / "study.db-wal").read_bytes()
        assert (len(log) - _HEADER) % _FRAME == 0
        yield folder / "study.db", log, said


def found_after(tmp_path, name, database, log):
    """What a study says whose log the disk kept so."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(database, folder / "study.db")
    (folder / "study.db-wal").write_bytes(log)
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    storage = study.load(folder, NAME)
    found = [(each.state, each.values, each.user_attrs) for each in storage.trials("search")]
    Leases(storage, folder, 30).release_of_here()
    assert not storage.trials("search", TrialState.RUNNING)
    ended = [each for each in found if each[0] is TrialState.COMPLETE]
    assert len(storage.trials("search", TrialState.WAITING, TrialState.COMPLETE)) == len(found)
    assert len(storage.trials("search", TrialState.COMPLETE)) == len(ended)
    storage.disconnect()
    return found


def test_of_a_log_that_was_cut_off_whole_transactions_are_left_and_the_rest_runs_again(running, tmp_path):
    database, log, said = running
    frames = (len(log) - _HEADER) // _FRAME
    ends = [0, _HEADER, *(_HEADER + _FRAME * number - cut for number in range(1, frames + 1) for cut in (1000, 0))]
    found = [found_after(tmp_path, f"cut-{end}", database, log[:end]) for end in ends]
    places = [said.index(each) for each in found]
    assert places == sorted(places)
    assert set(places) == set(range(len(said)))


def test_of_a_log_with_a_gap_what_came_before_is_left(running, tmp_path):
    database, log, said = running
    frames = (len(log) - _HEADER) // _FRAME
    places = []
    for number in range(frames):
        start = _HEADER + _FRAME * number
        torn = log[: start + 512] + bytes(_FRAME - 512) + log[start + _FRAME :]
        places.append(said.index(found_after(tmp_path, f"torn-{number}", database, torn)))
    assert places == sorted(places)
    assert max(places) < len(said) - 1
