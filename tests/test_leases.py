"""Supervisors watch each other: what a silent one left running is carried out by another."""

import threading

import pytest
from optuna.trial import TrialState

from search import leases, queues, study
from search.config import StudyConfig
from search.cost import Budget
from search.database import REFUSALS
from search.errors import ConfigError
from search.leases import Leases, beating
from search.queues import Proposal

SECONDS = 30.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


@pytest.fixture
def storage(tmp_path):
    storage = study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    queues.enqueue_missing(storage, [Proposal("band", Budget("params", 1500), {})] * 2)
    return storage


@pytest.fixture
def other(storage, tmp_path):
    return study.load(tmp_path, "digits")


def states(storage):
    return [trial.state for trial in storage.trials("search")]


def listen(watch, clock, seconds):
    """Look every 5 seconds for so long, as a supervisor does."""
    for _ in range(int(seconds / 5)):
        clock.now += 5
        watch.release_silent()


def beat(storage, number):
    storage.say(f"supervisor:{storage.supervisor}", {"beat": number, "host": "elsewhere", "folder": "/study"})


def test_what_a_silent_supervisor_left_running_returns_to_the_queue(storage, other, tmp_path, clock):
    other.claim("search")
    beat(other, 1)
    watch = Leases(storage, tmp_path, SECONDS)
    watch.release_silent()
    listen(watch, clock, SECONDS)
    assert states(storage) == [TrialState.RUNNING, TrialState.WAITING]
    listen(watch, clock, 5)
    assert states(storage) == [TrialState.WAITING, TrialState.WAITING]
    (trial, _) = storage.trials("search")
    assert trial.user_attrs["attempts"] == 1
    assert "was silent for more than 30 seconds" in trial.user_attrs["detail"]
    assert beating(storage) == {}


def test_one_that_never_beat_is_as_silent(storage, other, tmp_path, clock):
    other.claim("search")
    watch = Leases(storage, tmp_path, SECONDS)
    watch.release_silent()
    listen(watch, clock, SECONDS + 5)
    assert states(storage)[0] is TrialState.WAITING


def test_one_that_beats_keeps_what_it_has(storage, other, tmp_path, clock):
    other.claim("search")
    watch = Leases(storage, tmp_path, SECONDS)
    for number in range(10):
        beat(other, number)
        watch.release_silent()
        listen(watch, clock, 20)
    assert states(storage)[0] is TrialState.RUNNING


def test_one_that_beats_more_seldom_is_waited_for_as_long_as_its_own_lease(storage, other, tmp_path, clock):
    other.claim("search")
    other.say(f"supervisor:{other.supervisor}", {"beat": 1, "host": "", "folder": "", "lease": 10 * SECONDS})
    watch = Leases(storage, tmp_path, SECONDS)
    watch.release_silent()
    listen(watch, clock, 10 * SECONDS)
    assert states(storage)[0] is TrialState.RUNNING
    listen(watch, clock, 5)
    assert states(storage)[0] is TrialState.WAITING


def test_a_file_that_another_machine_is_at_is_refused(storage, other, tmp_path, monkeypatch):
    beat(other, 1)
    with pytest.raises(ConfigError, match="elsewhere is at work on it; SQLite serves one machine"):
        Leases(storage, tmp_path, SECONDS).__enter__()
    monkeypatch.setattr(leases.time, "sleep", lambda _: beat(other, 2))  # where locks are not shared, beats are
    with pytest.raises(ConfigError, match="elsewhere is at work on it"):
        Leases(storage, tmp_path, SECONDS).release_of_here()
    assert beating(storage)


def test_who_did_not_listen_gives_everybody_the_whole_time_again(storage, other, tmp_path, clock):
    other.claim("search")
    beat(other, 1)
    watch = Leases(storage, tmp_path, SECONDS)
    watch.release_silent()
    clock.now += 10 * SECONDS  # this process was stopped, or the server away, and with it all beats
    watch.release_silent()
    listen(watch, clock, SECONDS)
    assert states(storage)[0] is TrialState.RUNNING
    listen(watch, clock, 5)
    assert states(storage)[0] is TrialState.WAITING


def test_its_own_are_never_taken_for_silent(storage, tmp_path, clock):
    storage.claim("search")
    watch = Leases(storage, tmp_path, SECONDS)
    listen(watch, clock, 5 * SECONDS)
    assert states(storage)[0] is TrialState.RUNNING


def test_a_supervisor_beats_while_it_is_there(storage, other, tmp_path):
    with Leases(storage, tmp_path, 0.06):
        key = storage.supervisor
        seen = set()
        waited = threading.Event()
        for _ in range(500):
            seen.add(beating(other).get(key, {}).get("beat"))
            if len(seen - {None}) >= 3:
                break
            waited.wait(0.01)
        assert len(seen - {None}) >= 3
    assert beating(other) == {}


def test_a_beat_that_cannot_be_written_harms_nothing(storage, tmp_path, monkeypatch):
    def full(*_):
        raise REFUSALS[0]("disk full")

    monkeypatch.setattr(type(storage), "say", full)
    with Leases(storage, tmp_path, 0.06):
        threading.Event().wait(0.1)


def test_whoever_is_alone_with_a_file_releases_all_and_holds_it_against_none(storage, other, tmp_path):
    other.claim("search")
    beat(other, 1)
    Leases(storage, tmp_path, SECONDS).release_of_here()
    assert states(storage)[0] is TrialState.WAITING
    assert storage.trials("search")[0].user_attrs["attempts"] == 0
