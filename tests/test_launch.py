"""Local workers: what a dead one was doing goes back to the queue."""

import io
import os
import subprocess
import sys
import tempfile

import pytest
from optuna.trial import TrialState

from search import launch, queues, study
from search.config import StudyConfig
from search.cost import Budget
from search.errors import FilterSearchError, StorageError
from search.launch import POLL_SECONDS, JobWatch, LocalWorkers, Pace
from search.schedule import FilterSchedule


@pytest.mark.parametrize("purpose", study.PURPOSES)
@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("pass", "the worker ended with exit status 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the worker died by signal SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", "the worker died by signal 40"),
    ],
)
def test_a_job_of_any_purpose_returns_to_the_queue_when_its_worker_dies(tmp_path, monkeypatch, purpose, death, said):
    storage = study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    schedule = FilterSchedule((8, 8, 8))
    queues.enqueue_missing(storage, [queues.Proposal("qmc", Budget("params", 1500), {})])
    storage.queue("confirm", [queues.confirmation(str(schedule), 0, 4)])
    queues.enqueue_probes(storage, [queues.Probe(schedule, 0, 4, "test", 15, learning_rate_factor=2.0)])
    dead = subprocess.Popen([sys.executable, "-c", death])
    status = dead.wait()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: dead.pid)
        assert storage.claim(purpose)
    workers = LocalWorkers(tmp_path, StudyConfig(), 1, 0)

    def start(_):
        log = tempfile.TemporaryFile()  # noqa: SIM115
        log.write(b"a long trace, " * 1000)
        return launch._Worker(log, dead.pid, status)

    monkeypatch.setattr(workers, "_start", start)
    workers.tend(storage)
    (job,) = storage.trials(purpose)
    assert job.state is TrialState.WAITING
    assert job.user_attrs["detail"].splitlines()[0] == said
    workers.wait()


@pytest.mark.parametrize(("status", "error"), [(1, FilterSearchError), (5, StorageError)])
def test_what_ends_every_worker_at_its_start_is_one_message(tmp_path, monkeypatch, status, error):
    storage = study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    workers = LocalWorkers(tmp_path, StudyConfig(), 2, 0)
    monkeypatch.setattr(workers, "_start", lambda _: launch._Worker(io.BytesIO(b"no room"), None, status))
    workers.tend(storage)
    workers.tend(storage)
    message = rf"before they start any work(?s:.*)ended with exit status {status}\nno room$"
    with pytest.raises(FilterSearchError, match=message) as met:
        workers.tend(storage)
    assert type(met.value) is error


def test_looking_takes_little_of_a_core_however_long_it_takes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.process_time", lambda: now[0])
    pace = Pace()
    for spent, share in ((0.0001, 0.02), (0.02, 0.02), (0.005, 0.025)):
        with pace.looking():
            now[0] += spent
        assert spent <= share * POLL_SECONDS * pace.polls()
    with pace.looking():
        now[0] += 60
    assert POLL_SECONDS * pace.polls() <= 2
    assert pace.polls() == 1


def test_a_job_that_takes_too_long_is_told_with_the_process_it_runs_in(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    storage = study.create(tmp_path, StudyConfig(), ("maximize",), "data")
    queues.enqueue_missing(storage, [queues.Proposal("qmc", Budget("params", 1500), {})] * 2)
    storage.claim("search")
    study.load(tmp_path, "digits").claim("search")  # another supervisor's, which is not this one's business
    watch = JobWatch(max_minutes=1)
    for _ in range(6):
        assert watch.overdue(storage) == []
        now[0] += 10.1
    ((process, why),) = watch.overdue(storage)
    assert process == os.getpid()
    assert "took longer than compute.max_job_minutes, 1," in why
    storage.release("search", storage.owner.__eq__, why)
    storage.claim("search")
    now[0] += 30
    assert watch.overdue(storage) == []  # tried again, and begun anew
    now[0] += 1000  # this process was stopped for so long
    assert watch.overdue(storage) == []
    assert JobWatch(None).overdue(storage) == []
