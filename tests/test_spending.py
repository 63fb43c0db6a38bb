import pytest
from optuna.trial import TrialState, create_trial

from search.config import StudyConfig
from search.spending import spent_seconds
from search.study import create_in_memory


@pytest.fixture
def storage():
    return create_in_memory(StudyConfig(), ["maximize"], None)


def add(study, state, *seconds):
    runs = [{"seed": n, "accuracy": 0.9, "wall_seconds": each} for n, each in enumerate(seconds)]
    value = 0.9 if state is TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, value=value, user_attrs={"runs": runs}))


def test_a_new_study_has_spent_nothing(storage):
    assert spent_seconds(storage) == 0
    storage.search.add_trial(create_trial(state=TrialState.WAITING))
    assert spent_seconds(storage) == 0


def test_runs_of_every_purpose_count_whatever_came_of_them(storage):
    add(storage.search, TrialState.COMPLETE, 1.0, 2.0)
    add(storage.search, TrialState.FAIL, 4.0)
    add(storage.search, TrialState.FAIL)
    add(storage.search, TrialState.PRUNED, 8.0)
    add(storage.confirm, TrialState.COMPLETE, 16.0)
    add(storage.probe, TrialState.COMPLETE, 32.0)
    assert spent_seconds(storage) == 63


def test_only_what_has_ended_counts(storage):
    add(storage.search, TrialState.COMPLETE, 1.0)
    add(storage.search, TrialState.RUNNING, 2.0)
    add(storage.search, TrialState.WAITING, 4.0)
    assert spent_seconds(storage) == 1
