"""Studies that are broken while they run, briefly; `make faults` does so at length. The checker is tried first."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import pytest
from faults import hostile, injections, places
from faults.campaign import drawn, endure, missing
from faults.invariants import changes, violations
from faults.studies import NAME, ground, write_table
from faults.watch import Acknowledged, Watch, end_of
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from search import queues, study
from search.config import StudyConfig
from search.cost import Budget
from search.database import guarded
from search.errors import StorageError
from search.queues import Proposal

TRIALS = 3


def trial(number, state=TrialState.COMPLETE, values=(0.5,), **attrs):
    made = create_trial(state=state, values=values if state is TrialState.COMPLETE else None, user_attrs=attrs)
    made.number = number
    return made


def runs(*seeds, accuracy=0.5):
    return [{"seed": seed, "accuracy": accuracy} for seed in seeds]


@pytest.fixture
def sound():
    """A study in which all holds."""
    search = [
        trial(number, proposal=number, schedule="4-8", machine="a", runs=runs(10 + number)) for number in range(TRIALS)
    ]
    confirm = [
        trial(number, schedule="4-8", first=2 * number, count=2, machine="a", runs=runs(2 * number, 2 * number + 1))
        for number in range(2)
    ]
    return {"search": search, "confirm": confirm, "probe": []}


@pytest.fixture
def seen(sound):
    acknowledged = Acknowledged()
    acknowledged.note(sound)
    return acknowledged


def found_wrong(found, acknowledged, **options):
    return "; ".join(violations(found, acknowledged, TRIALS, **options))


def test_nothing_is_found_where_all_holds(sound, seen):
    assert found_wrong(sound, seen) == ""
    assert found_wrong(deepcopy(sound), seen) == ""


def test_a_number_twice_or_a_gap_is_found(sound):
    sound["search"][1].number = 2
    assert "numbers" in found_wrong(sound, Acknowledged())


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.WAITING])
def test_work_left_over_is_found(sound, state):
    sound["confirm"].append(trial(2, state, schedule="4-8", first=4, count=2))
    assert f"confirm 2 is {state.name}" in found_wrong(sound, Acknowledged())


def test_a_lost_end_is_found(sound, seen):
    del sound["confirm"][1]
    assert "confirm 1 had ended, and is gone" in found_wrong(sound, seen)


def test_an_end_that_changed_is_found(sound, seen):
    sound["search"][1] = trial(1, proposal=1, schedule="4-8", machine="a", runs=runs(11, accuracy=0.6))
    assert "search 1 had ended so" in found_wrong(sound, seen)
    seen.note(sound)
    assert "search 1 had 2 ends" in found_wrong(sound, seen)


def test_a_proposal_carried_out_twice_is_found(sound):
    sound["search"].append(trial(TRIALS, proposal=1, schedule="4-8", machine="a", runs=runs(9)))
    assert "more than once: proposals [1]" in found_wrong(sound, Acknowledged())


def test_a_proposal_too_few_or_too_many_is_found(sound):
    more = trial(TRIALS, proposal=TRIALS, schedule="4-8", machine="a", runs=runs(9))
    assert "proposals [3] are not" in found_wrong(sound | {"search": [*sound["search"], more]}, Acknowledged())
    assert "proposals [2] are not" in found_wrong(sound | {"search": sound["search"][:2]}, Acknowledged())


def test_what_was_put_aside_is_found_unless_it_was_to_be(sound):
    sound["search"][2] = trial(2, TrialState.FAIL, proposal=2, reason="crash", detail="died")
    assert "put aside were 1, not 0" in found_wrong(sound, Acknowledged())
    assert missing(sound)
    assert found_wrong(sound, Acknowledged(), put_aside=1) == ""
    again = sound | {"search": [*sound["search"], trial(3, proposal=2, schedule="4-8", machine="a", runs=runs(12))]}
    assert found_wrong(again, Acknowledged()) == ""
    assert not missing(again)


@pytest.mark.parametrize("first", [0, 1, 3])
def test_confirmation_runs_that_overlap_or_leave_a_gap_are_found(sound, first):
    sound["confirm"][1] = trial(1, schedule="4-8", first=first, count=2, machine="a", runs=runs(7, 8))
    assert "has the spans" in found_wrong(sound, Acknowledged())


def test_a_seed_confirmed_twice_is_found(sound):
    sound["confirm"][1] = trial(1, schedule="4-8", first=2, count=2, machine="a", runs=runs(0, 3))
    assert "one seed twice" in found_wrong(sound, Acknowledged())


def test_equal_work_with_unequal_results_is_found(sound, seen):
    other = trial(1, proposal=1, schedule="4-8", machine="a", runs=runs(10, accuracy=0.7))
    assert "and elsewhere" in found_wrong({"search": [other]}, Acknowledged(results=seen.results))
    other.set_user_attr("machine", "b")  # results may differ between machines
    assert "and elsewhere" not in found_wrong({"search": [other]}, Acknowledged(results=seen.results))


def test_a_proposal_that_became_two_schedules_is_found(seen):
    other = trial(1, proposal=1, schedule="8-8", machine="a", runs=runs(99))
    assert "and elsewhere 8-8" in found_wrong({"search": [other]}, Acknowledged(results=seen.results))


def test_what_another_launch_changes_is_found():
    whole = {"search": ["an end"], "trials.csv": b"1", "runs.csv": b"2", "verdict.json": b"3"}
    assert changes(whole, whole) == []
    assert changes(whole, whole | {"runs.csv": b"4"}) == ["launched once more it changed runs.csv"]
    assert changes(whole, whole | {"search": ["an end", "another"]}) == ["launched once more it changed search"]
    assert changes({"search": []}, {"search": []})[0] == "trials.csv is missing"


def test_steps_are_changes_of_state():
    acknowledged, waiting = Acknowledged(), trial(0, TrialState.WAITING)
    acknowledged.note({"search": [waiting]})
    assert acknowledged.steps == 0
    for state in (TrialState.RUNNING, TrialState.RUNNING, TrialState.WAITING):
        acknowledged.note({"search": [trial(0, state, attempts=1)]})
    assert acknowledged.steps == 2


def test_an_end_is_all_there_is_to_a_trial():
    distribution = {"a": IntDistribution(1, 9)}
    ends = {
        end_of(create_trial(state=TrialState.COMPLETE, values=[value], params={"a": a}, distributions=distribution))
        for value, a in ((0.5, 1), (0.6, 1), (0.5, 2))
    }
    assert len(ends) == 3


def test_faults_are_drawn_as_often_as_they_weigh_and_the_same_for_a_seed():
    weights = {injections.kill_worker: 9, injections.terminate: 1}
    first, second = (drawn(weights, 200, np.random.default_rng(4)) for _ in range(2))
    assert first == second
    assert 160 < Counter(first)[injections.kill_worker] < 200


_TWELVE_FIRST_STARTS = """
import os, sys, traceback
from pathlib import Path
from search import configfile, run
from search.plan import make_plan

plan, where = make_plan(configfile.read(Path(sys.argv[1]))), Path(sys.argv[2])
starting, start = os.pipe()
for _ in range(12):
    if not os.fork():
        os.close(start)
        os.read(starting, 1)  # until all are there
        try:
            run._open(plan, where)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
os.close(start)
sys.exit(any(os.wait()[1] for _ in range(12)))
"""


@pytest.mark.integration
@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_twelve_first_starts_at_once_make_one_study(storage, request, tmp_path):
    at = ground(tmp_path / "starts", request.getfixturevalue("postgres") if storage == "postgresql" else None)
    write_table(at, 40, 0)
    at.folder.mkdir()
    command = [sys.executable, "-c", _TWELVE_FIRST_STARTS, str(at.config), str(at.folder)]
    subprocess.run(command, env=at.environment, check=True)
    queued = Watch(at).look()
    assert [trial.user_attrs["proposal"] for trial in queued["search"]] == list(range(40))
    assert [trial.number for trial in queued["search"]] == list(range(40))
    assert {path.name for path in at.folder.iterdir()} == {"storage.url" if at.server else "study.db"}


def carry_out_until_full(storage, watch, folder):
    with guarded(folder):
        for number in range(60):
            storage.search.tell(storage.claim("search"), 0.5)
            watch.look()
            if number == 3:
                injections.fill(folder / "filler")


def test_a_full_disk_refuses_and_takes_nothing_back(tmp_path):
    config = StudyConfig.model_validate({"name": NAME})
    with places.small_disk(tmp_path / "disk", 2) as mounted:
        if not mounted:
            pytest.skip("this user may not mount a disk")
        at = ground(tmp_path / "disk" / "full", None)
        at.folder.mkdir()
        storage, watch = study.create(at.folder, config, ("maximize",), "data"), Watch(at)
        queues.enqueue_missing(storage, [Proposal("band", Budget("params", 1500), {})] * 60)
        with storage.written_fast():
            with pytest.raises(StorageError, match="cannot be used as a study"):
                carry_out_until_full(storage, watch, at.folder)
            assert len(watch.acknowledged.ends) >= 3
            (at.folder / "filler").unlink()
            assert not [each for each in violations(watch.look(), watch.acknowledged, 60) if "had" in each]
            storage.release("search", storage.owner.__eq__, "a full disk", counts=False)
            while claimed := storage.claim("search"):
                storage.search.tell(claimed, 0.5)
        assert list(violations(watch.look(), watch.acknowledged, 60)) == []


FAULTS = [
    injections.kill_worker,
    injections.stop_family,
    injections.kill_template,
    injections.stop_supervisor,
    injections.kill_supervisor,
]


@pytest.fixture(scope="module")
def broken(postgres, tmp_path_factory):
    """What comes of studies that are broken, side by side, since most of the time is waiting."""
    folder = tmp_path_factory.mktemp("broken")
    on_file = ground(folder / "on_file", None)
    on_server = ground(folder / "on_server", postgres)
    for at in (on_file, on_server):
        write_table(at, 20, 0.4)
    restarts = [injections.stop_server, injections.kill_worker, injections.crash_server, injections.kill_worker]
    with ThreadPoolExecutor() as pool:
        started = {
            "file": pool.submit(endure, "", on_file, 20, ("run", "worker"), FAULTS, np.random.default_rng(0)),
            "server": pool.submit(endure, "", on_server, 20, ("run",), restarts, np.random.default_rng(1)),
            "hostile": pool.submit(hostile.run, ground(folder / "hostile", None, folder / "imports")),
        }
        yield {"ground": on_file} | started


def outcome_of(broken, name):
    outcome = broken[name].result()
    assert outcome.wrong == []
    return outcome


@pytest.mark.integration
@pytest.mark.parametrize("name", ["file", "server"])
def test_nothing_is_lost_whatever_dies_or_sleeps(broken, name):
    outcome = outcome_of(broken, name)
    assert outcome.injected.total() >= 3, "the study was done before it was broken"
    assert outcome.ends >= 20


@pytest.mark.integration
def test_candidates_that_kill_hang_or_diverge_leave_the_rest_of_the_study_whole(broken):
    assert outcome_of(broken, "hostile").injected.total() == len(hostile.HARMS)
