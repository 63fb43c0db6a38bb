"""Many workers on one study in PostgreSQL: what they do a second, what each trial and each look takes of the server.

    make bench-scale

Runs of a table that take their time stand for GPUs. Needs a PostgreSQL server's programs, as the tests do, and starts
one of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import postgres
import sqlalchemy
from benchmarks.bookkeeping import finished_trials
from benchmarks.ratios import heading, markdown
from benchmarks.studies import throughput
from optuna.trial import TrialState
from rich.console import Console
from rich.markdown import Markdown

from search import plainyaml, queues, study
from search.configfile import parse, read
from search.leases import Leases, beating
from search.plan import make_plan
from search.storageurl import VARIABLE
from search.study import PURPOSES, Storage
from search.worker import carry_out_next, make_evaluator, open_study

RUN_SECONDS = 1.0
TRIALS_PER_WORKER = 12
WORKERS = (1, 2, 4, 8, 16)
SIZES = (1_000, 10_000)
_LOOKS = 20
_CARRIED_OUT = 40


def config_text(trials: int, seconds: float) -> str:
    return f"""\
name: scale
table:
  surface: {{best_ratio: 1.0, strength: 0.15, size_gain: 0.3, accuracy: 0.9}}
  images: {{}}
  noise_sd: 0.004
  seconds_per_run: {seconds}
budgets: [params <= 1500]
search: {{trials: {trials}, seeds_per_trial: 1}}
confirm: {{looks: [2], challengers: 1}}
"""


@dataclass(frozen=True)
class Throughput:
    """A search by so many workers: trials a second while all were at it, and milliseconds of a core for each trial."""

    workers: int
    a_second: float
    server_ms: float
    workers_ms: float


def measure_workers(server: postgres.Postgres, workers: int) -> Throughput:
    """One study, as the command runs it, in a database of its own."""
    trials = TRIALS_PER_WORKER * workers
    with tempfile.TemporaryDirectory() as name, _storage_at(server):
        file, folder = Path(name, "scale.yaml"), Path(name, "study")
        file.write_text(config_text(trials, RUN_SECONDS))
        command = [sys.executable, "-m", "search", "run", file, "--out", folder, "--workers", str(workers)]
        before, spent = server_seconds(server), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        done = study.load(folder, read(file).name).trials("search", TrialState.COMPLETE)
        own = after.children_user + after.children_system - spent.children_user - spent.children_system
        return Throughput(
            workers, throughput(done), 1000 * (server_seconds(server) - before) / trials, 1000 * own / trials
        )


@dataclass(frozen=True)
class Costs:
    """What a study of so many finished trials takes of the server, in milliseconds of its core, and by the clock."""

    trials: int
    job_ms: float
    job_wall_ms: float
    look_ms: float
    beat_ms: float


def measure_costs(server: postgres.Postgres, trials: int) -> Costs:
    """A trial carried out in no time, a supervisor's look at a study and its beat, each many times over."""
    with tempfile.TemporaryDirectory() as name, _storage_at(server):
        folder = Path(name)
        plan = make_plan(parse(_tree(trials + _CARRIED_OUT), "the benchmark"))
        storage = study.create(folder, plan.config, plan.objective.directions, plan.source.fingerprint)
        storage.store.add(storage.store.get_study_id_from_name("scale"), finished_trials(plan, 0, trials))
        queues.enqueue_missing(storage, plan.proposals())
        worker = open_study(plan, folder)
        evaluate = make_evaluator(plan)
        carry_out_next(plan, evaluate, worker)  # reads all trials once, as each worker does
        spent, began = backend_seconds(worker), time.perf_counter()
        for _ in range(_CARRIED_OUT - 1):
            carry_out_next(plan, evaluate, worker)
        wall = time.perf_counter() - began
        job = backend_seconds(worker) - spent
        look(storage)
        spent = backend_seconds(storage)
        for _ in range(_LOOKS):
            look(storage)
        looked = backend_seconds(storage) - spent
        for number in range(_LOOKS):
            storage.say("supervisor:benchmark", {"beat": number, "host": "", "folder": ""})
            beating(storage)
        beaten = backend_seconds(storage) - spent - looked
        costs = Costs(
            trials,
            1000 * job / (_CARRIED_OUT - 1),
            1000 * wall / (_CARRIED_OUT - 1),
            1000 * looked / _LOOKS,
            1000 * beaten / _LOOKS,
        )
        worker.disconnect()
        storage.disconnect()
        return costs


def look(storage: Storage) -> None:
    """What a supervisor asks of a study several times a minute or a second: every trial's state, and who is silent."""
    queues.jobs(storage, "search")
    for purpose in PURPOSES:
        storage.trials(purpose, TrialState.RUNNING)
    Leases(storage, Path(), 30.0).release_silent()


def _tree(trials: int) -> object:
    return plainyaml.load(config_text(trials, 0), "the benchmark")


@contextmanager
def _storage_at(server: postgres.Postgres) -> Iterator[None]:
    """In here studies are kept in a new database of this server."""
    os.environ[VARIABLE] = server.url("scale").render_as_string(hide_password=False)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def server_seconds(server: postgres.Postgres) -> float:
    """Seconds of a core the server took so far: its own, and those of its processes that have ended or still run."""
    postmaster = server.pid
    family = [
        postmaster,
        *(int(each) for each in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()),
    ]
    return sum(map(_process_seconds, family)) + _process_seconds(postmaster, children=True)


def backend_seconds(storage: Storage) -> float:
    """Seconds of a core of the server's process that answers this storage's first connection."""
    with storage.backend.engine.connect() as connection:
        return _process_seconds(connection.execute(sqlalchemy.text("SELECT pg_backend_pid()")).scalar_one())


def _process_seconds(pid: int, *, children: bool = False) -> float:
    """Of a process itself, or of its children that were waited for; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = fields[13:15] if children else fields[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def report(workers: list[Throughput], costs: list[Costs]) -> Iterator[str]:
    yield (
        f"`filter-search run` on a table whose every run takes {RUN_SECONDS:g} s, {TRIALS_PER_WORKER} trials of one "
        "run for each worker: trials a second while all workers were at it, of how many there could be, and what a "
        "trial took of a core, start and end of the study included."
    )
    yield ""
    yield from markdown(
        ("workers", "trials a second", "efficiency", "server, ms a trial", "all of filter-search, ms a trial"),
        [
            (
                str(each.workers),
                f"{each.a_second:.2f}",
                f"{each.a_second * RUN_SECONDS / each.workers:.2f}",
                f"{each.server_ms:.1f}",
                f"{each.workers_ms:.0f}",
            )
            for each in workers
        ],
    )
    yield (
        "What a study takes of the server by the number of its finished trials, in milliseconds of a core: a job "
        "(claim, propose, write, end), a supervisor's look at the study, its beat with its look at the others'."
    )
    yield ""
    yield from markdown(
        ("trials", "job", "job, by the clock", "look", "beat"),
        [
            (
                f"{each.trials:,}",
                f"{each.job_ms:.1f}",
                f"{each.job_wall_ms:.1f}",
                f"{each.look_ms:.1f}",
                f"{each.beat_ms:.1f}",
            )
            for each in costs
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, required=True, help="the file for the tables")
    path = parser.parse_args().write
    server = postgres.Postgres(postgres.binaries(), Path(tempfile.mkdtemp(prefix="filter-search-scale-")))
    try:
        costs = [measure_costs(server, trials) for trials in SIZES]
        workers = [measure_workers(server, count) for count in WORKERS]
    finally:
        server.end()
    text = "".join(f"{line}\n" for line in [*heading("Scale, measured", "make bench-scale"), *report(workers, costs)])
    Console().print(Markdown(text))
    path.write_text(text)


if __name__ == "__main__":
    main()
