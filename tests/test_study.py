import sqlite3
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from search import database, queues, study
from search.config import StudyConfig
from search.cost import Budget
from search.errors import StorageError
from search.progress import progress
from search.queues import Probe, Proposal
from search.schedule import FilterSchedule
from search.storageurl import VARIABLE
from search.study import MOST_ATTEMPTS
from search.trialstore import LostTrialError

BUDGET = Budget("params", 1500)


def anybody(_):
    return True


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(tmp_path, request, monkeypatch):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url("study")
        monkeypatch.setenv(VARIABLE, url.render_as_string(hide_password=False))
    storage = study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    yield storage
    storage.disconnect()


@pytest.fixture
def in_file(tmp_path):
    return study.create(tmp_path, StudyConfig(), ("maximize",), "data")


def test_every_proposal_is_queued_once_however_often_it_is_asked_for(storage):
    proposals = [Proposal("band", BUDGET, {})] * 3
    queues.enqueue_missing(storage, proposals[:2])
    storage.claim("search")
    queues.enqueue_missing(storage, proposals)
    queues.enqueue_missing(storage, proposals)
    assert [trial.user_attrs["proposal"] for trial in storage.trials("search")] == [0, 1, 2]


def give_up(storage, purpose):
    for _ in range(MOST_ATTEMPTS):
        assert storage.claim(purpose)
        storage.release(purpose, storage.owner.__eq__, "exit status -9")


def test_what_was_given_up_is_queued_again_and_counts_once(storage):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
    storage.queue("confirm", [queues.confirmation(str(FilterSchedule((8, 8, 8))), 16, 16)])
    probe = Probe(FilterSchedule((8, 8, 8)), 0, 4, "test", 15, learning_rate_factor=2.0)
    queues.enqueue_probes(storage, [probe])
    for purpose in study.PURPOSES:
        give_up(storage, purpose)
    assert progress(storage).given_up == 3
    assert progress(storage).first_crash
    for _ in range(2):
        queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
        queues.enqueue_given_up(storage)
        queues.enqueue_probes(storage, [probe])
    assert [len(storage.trials(purpose)) for purpose in study.PURPOSES] == [2, 2, 2]
    counts = progress(storage)
    assert (counts.trials, counts.confirmations, counts.probes, counts.given_up) == (1, 16, 4, 0)
    again = storage.claim("confirm")
    assert (again.user_attrs["schedule"], again.user_attrs["first"], again.user_attrs["count"]) == ("8-8-8", 16, 16)


def test_a_creation_that_was_killed_leaves_no_study_and_the_next_one_succeeds(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", killed)
        with pytest.raises(KeyboardInterrupt):
            study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    assert not (tmp_path / "study.db").exists()
    assert study.create(tmp_path, StudyConfig(), ("maximize",), "data").trials("search") == []
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_claims_take_queued_trials_in_order_and_never_create_one(storage):
    queues.enqueue_missing(storage, [Proposal("doubling", BUDGET, {"stage_1": 4}), Proposal("band", BUDGET, {})])
    first, second = storage.claim("search"), storage.claim("search")
    assert (first.number, second.number) == (0, 1)
    assert storage.claim("search") is None
    assert len(storage.trials("search")) == 2


def test_two_workers_never_claim_one_trial(storage, tmp_path):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})] * 6)
    other = study.load(tmp_path, "digits")
    claimed = [each.claim("search") for each in (storage, other) * 4]
    assert Counter(trial.number for trial in claimed if trial) == Counter(range(6))


def test_what_another_queued_meanwhile_is_not_queued_twice(storage, tmp_path):
    other = study.load(tmp_path, "digits")
    job = queues.confirmation("8-8-8", 0, 4)
    assert [each.queue("confirm", [job], after=0) for each in (storage, other)] == [True, False]
    assert len(storage.trials("confirm")) == 1
    storage.set_once("confirm", "cases", ["first"])
    other.set_once("confirm", "cases", ["second"])
    assert other.confirm.user_attrs["cases"] == ["first"]


def test_of_two_first_launches_one_makes_the_study(tmp_path):
    first, second = (study.create(tmp_path, StudyConfig(), ("maximize",), each) for each in ("one", "another"))
    assert first.search.user_attrs["data"] == second.search.user_attrs["data"] == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_released_work_returns_to_the_queue_under_its_number(storage):
    queues.enqueue_missing(storage, [Proposal("doubling", BUDGET, {"stage_1": 4})])
    trial = storage.claim("search")
    trial.suggest_int("stage_1", 2, 64, log=True)
    assert storage.release("search", anybody, "interrupted", counts=False) == 1
    again = storage.claim("search")
    assert (again.number, again.suggest_int("stage_1", 2, 64, log=True)) == (0, 4)


def test_work_that_keeps_crashing_is_given_up_with_what_happened(storage):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
    for _ in range(MOST_ATTEMPTS):
        trial = storage.claim("search")
        storage.release("search", storage.owner.__eq__, "exit status -9")
    assert trial is not None
    assert storage.claim("search") is None
    [ended] = storage.trials("search")
    assert ended.state is TrialState.FAIL
    assert (ended.user_attrs["reason"], ended.user_attrs["detail"]) == ("crash", "exit status -9")
    assert not study.is_finished(ended)


def test_interruptions_are_held_against_no_trial(storage):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
    for _ in range(3 * MOST_ATTEMPTS):
        assert storage.claim("search") is not None
        storage.release("search", anybody, "interrupted", counts=False)


def test_release_leaves_other_owners_alone(storage):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
    storage.claim("search")
    assert storage.release("search", "somebody else".__eq__, "died") == 0
    assert storage.trials("search")[0].state is TrialState.RUNNING


def test_seeds_differ_between_purposes_schedules_and_runs():
    seeds = [
        seed
        for purpose in study.PURPOSES
        for schedule in (FilterSchedule((4, 7, 15)), FilterSchedule((8, 8, 8)))
        for seed in study.run_seeds(0, purpose, schedule, 0, 128)
    ]
    assert len(set(seeds)) == len(seeds)
    later = study.run_seeds(0, "confirm", FilterSchedule((8, 8, 8)), 16, 16)
    assert later == study.run_seeds(0, "confirm", FilterSchedule((8, 8, 8)), 0, 32)[16:]


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100, b"SQLite format 3\x00" + b"\x01" * 5000])
def test_a_corrupt_study_is_one_storage_error(tmp_path, content):
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(StorageError, match="cannot be used as a study"):
        study.load(tmp_path, "digits")
    assert (tmp_path / "study.db").read_bytes() == content


def test_what_the_storage_refuses_later_is_one_message(in_file, tmp_path):
    (tmp_path / "study.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(StorageError, match="cannot be used as a study"), database.guarded(tmp_path):
        in_file.claim("search")


def test_another_database_is_no_study(tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("create table notes (text)")
    connection.close()
    with pytest.raises(StorageError, match="cannot be used as a study"):
        study.load(tmp_path, "digits")


def test_no_study_db(tmp_path):
    with pytest.raises(StorageError, match=r"holds no study\.db"):
        study.load(tmp_path, "digits")


def test_optuna_stays_silent():
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def test_a_study_written_fast_is_one_file_again_afterwards(in_file, tmp_path):
    queues.enqueue_missing(in_file, [Proposal("band", BUDGET, {})])
    with in_file.written_fast():
        trial = in_file.claim("search")
        trial.set_user_attr("schedule", "8-8-8")
        assert (tmp_path / "study.db-wal").exists()
        reader = study.load(tmp_path, "digits")
        assert "schedule" not in reader.trials("search")[0].user_attrs
        in_file.write(trial)
        assert reader.trials("search")[0].user_attrs["schedule"] == "8-8-8"
        in_file.search.tell(trial, 0.5)
        assert reader.trials("search")[0].value == 0.5
        reader.store.disconnect()
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
    assert study.load(tmp_path, "digits").trials("search") == optuna.load_study(
        study_name="digits", storage=in_file.backend
    ).get_trials(deepcopy=False)


@pytest.mark.parametrize("taken_again", [False, True])
def test_a_trial_that_was_taken_away_is_no_longer_written_to(storage, tmp_path, taken_again):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
    trial = storage.claim("search")
    other = study.load(tmp_path, "digits")
    assert other.release("search", anybody, "silent") == 1
    if taken_again:
        other.claim("search")
    trial.set_user_attr("schedule", "8-8-8")
    with pytest.raises(LostTrialError, match="trial 0 is no longer this worker's"):
        storage.write(trial)
    with pytest.raises(LostTrialError):
        storage.search.tell(trial, 0.5)
    (kept,) = storage.trials("search")
    assert kept.state is (TrialState.RUNNING if taken_again else TrialState.WAITING)
    assert "schedule" not in kept.user_attrs
    assert storage.release("search", storage.owner.__eq__, "its own no longer") == 0


def test_what_was_carried_out_before_the_connection_broke_bears_being_repeated(storage, monkeypatch):
    def broken_after(statements):
        with store.backend.engine.begin() as connection:
            statements(connection)
        return once(statements)

    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})] * 2)
    store = storage.store
    once = store._do
    monkeypatch.setattr(store, "_do", broken_after)
    trial = storage.claim("search")
    assert [each.state for each in storage.trials("search")] == [TrialState.RUNNING, TrialState.WAITING]
    storage.search.tell(trial, 0.5)
    assert [each.state for each in storage.trials("search")] == [TrialState.COMPLETE, TrialState.WAITING]
    storage.claim("search")
    storage.release("search", anybody, "died")
    assert storage.trials("search")[1].user_attrs["attempts"] == 1


def test_values_beyond_numbers_are_read_as_optuna_reads_them(storage):
    queues.enqueue_missing(storage, [Proposal("band", BUDGET, {})])
    trial = storage.claim("search")
    trial.suggest_float("rate", 0.0, 1.0)
    for step, value in enumerate((0.5, float("inf"), float("-inf"))):
        trial.report(value, step)
    storage.search.tell(trial, float("inf"))
    read = optuna.load_study(study_name="digits", storage=storage.backend).get_trials(deepcopy=False)
    assert storage.trials("search") == read
