"""Local workers: what a dead one was doing goes back to the queue."""

import subprocess
import sys
import tempfile

import pytest
from optuna.trial import TrialState

from search import study
from search.config import StudyConfig
from search.cost import Budget
from search.launch import LocalWorkers
from search.schedule import FilterSchedule


@pytest.mark.parametrize("purpose", study.PURPOSES)
def test_a_job_of_any_purpose_returns_to_the_queue_when_its_worker_dies(tmp_path, monkeypatch, purpose):
    storage = study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    schedule = FilterSchedule((8, 8, 8))
    study.enqueue_missing(storage, [study.Proposal("qmc", Budget("params", 1500), {})])
    study.enqueue_confirmation(storage, schedule, 0, 4)
    study.enqueue_probes(storage, [study.Probe(schedule, 0, 4, "test", 15, learning_rate_factor=2.0)])
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: dead.pid)
        assert storage.claim(purpose)
    workers = LocalWorkers(tmp_path, 1, 0)
    monkeypatch.setattr(workers, "_start", lambda: (dead, tempfile.TemporaryFile()))  # noqa: SIM115
    for _ in range(2):  # the first starts them
        workers.tend(storage)
    assert [trial.state for trial in storage.trials(purpose)] == [TrialState.WAITING]
    workers.wait()
