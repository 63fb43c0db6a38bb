"""What stops a launch, besides its being done."""

import os
import signal

import pytest
from optuna.trial import TrialState
from planted import InlineWorkers, Planted, peaked

from search import queues, study
from search.config import ComputeConfig, StudyConfig
from search.coordinate import Launch, Stop, stopping
from search.errors import InterruptedStudyError, NoTrialError
from search.plan import make_plan
from search.worker import open_study


class FailsFrom(Planted):
    """Raises from some call on, another message each time."""

    first = 0

    def __call__(self, *arguments, **options):
        if len(self.asked) >= self.first:
            self.asked.append(arguments[0])
            msg = f"failure {len(self.asked)}"
            raise RuntimeError(msg)
        return super().__call__(*arguments, **options)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    monkeypatch.setattr("search.coordinate.POLL_SECONDS", 0)
    config = StudyConfig.model_validate({"search": {"trials": 30, "seeds_per_trial": 1}})
    plan = make_plan(config)
    study.create(tmp_path, config, plan.objective.directions, plan.data.fingerprint)
    storage = open_study(plan, tmp_path)
    queues.enqueue_missing(storage, plan.proposals())

    def launch(evaluate, stop):
        return Launch(plan, storage, InlineWorkers(plan, evaluate, storage), stop, lambda _: None)

    return storage, launch


def test_a_search_whose_candidates_fail_one_after_the_other_stops_with_the_first_cause(begin):
    storage, launch = begin
    failing = FailsFrom(peaked(1, 0.02))
    failing.first = 10
    with pytest.raises(NoTrialError, match="the last 5 jobs here all failed, 3 times each") as told:
        launch(failing, Stop(None)).search()
    assert str(told.value).count("Traceback") == 1
    assert "failure 13\n" in f"{told.value}\n"  # how the first of the five ended, after three attempts
    assert sum(trial.state is TrialState.COMPLETE for trial in storage.trials("search")) == 10
    assert len(storage.trials("search", TrialState.WAITING)) == 15


def test_a_study_that_has_used_up_its_gpu_hours_stops(begin):
    storage, launch = begin
    stop = Stop(None, max_gpu_hours=0.0095 / 3600)  # a planted run takes a millisecond
    assert not launch(Planted(peaked(1, 0.02)), stop).search()
    assert stop.heeded
    assert len(storage.trials("search", TrialState.COMPLETE)) == 10


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_stops_and_ends_with_its_code(number, code, capsys):
    before = signal.getsignal(number)
    with stopping(ComputeConfig()) as stop:
        assert not stop.due()
        os.kill(os.getpid(), number)
        assert stop.due()
    with pytest.raises(InterruptedStudyError) as told:
        stop.end()
    assert told.value.exit_code == code
    assert signal.getsignal(number) is before
    assert "stopping after the jobs at hand" in capsys.readouterr().err
