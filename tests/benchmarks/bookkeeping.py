"""What a trial costs besides its training: milliseconds by part, the coordinator's share, and 10,000 trials looked at.

    make bench

A planted truth stands in training's place, so all time is bookkeeping. Trials are added finished until a study has as
many as asked for, and a few more are carried out. `processor` is what a trial takes of a core; the other columns are
time on the wall, which a busy machine lengthens.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from benchmarks.large_study import finished_trials
from benchmarks.ratios import heading, markdown
from rich.console import Console
from rich.markdown import Markdown

from search import configfile, queues, study
from search.coordinate import Launch, Stop
from search.folder import locked
from search.launch import LocalWorkers
from search.plan import StudyPlan, make_plan
from search.progress import best_so_far, progress
from search.records import write_records
from search.samplers import AimedSampler
from search.study import Storage
from search.worker import carry_out_next, make_evaluator, open_study

ARMS = (("qmc", 100), ("qmc", 1_000), ("qmc", 10_000), ("tpe", 100), ("tpe", 1_000))
PARTS = {"claim": (Storage, "claim"), "propose": (AimedSampler, "sample_relative"), "write": (Storage, "write")}
PARTS["tell"] = (optuna.Study, "tell")
_CARRIED_OUT = 20
_LONGEST = 12.0
_WATCHED = 10.0


def planned(trials: int, sampler: str, folder: Path) -> StudyPlan:
    config = configfile.read(Path("configs/planted.yaml"))
    search = config.search.model_copy(update={"trials": trials, "sampler": sampler})
    config = config.model_copy(update={"search": search})
    folder.mkdir()
    configfile.write(config, folder / "config.yaml")
    return make_plan(config)


def prepared(plan: StudyPlan, folder: Path, finished: int) -> tuple[Storage, float]:
    """A study with so many trials finished, and milliseconds to queue each of the others."""
    storage = study.create(folder, plan.config, plan.objective.directions, plan.source.fingerprint)
    storage.store.add(storage.store.get_study_id_from_name(plan.config.name), finished_trials(plan, 0, finished))
    began = time.perf_counter()
    queues.enqueue_missing(storage, plan.proposals())
    waiting = plan.config.search.trials - finished
    return open_study(plan, folder), 1000 * (time.perf_counter() - began) / waiting


@contextmanager
def timed(spent: dict[str, list[float]]) -> Iterator[None]:
    """Note in here the seconds of each part."""
    kept = {name: getattr(owner, attribute) for name, (owner, attribute) in PARTS.items()}
    for name, (owner, attribute) in PARTS.items():
        setattr(owner, attribute, _timing(kept[name], spent[name]))
    try:
        yield
    finally:
        for name, (owner, attribute) in PARTS.items():
            setattr(owner, attribute, kept[name])


def _timing(function, taken: list[float]):
    def timing(*arguments, **options):
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            taken.append(time.perf_counter() - began)

    return timing


def measure(sampler: str, trials: int, folder: Path) -> list[str]:
    """One row of the table."""
    plan = planned(trials, sampler, folder)
    storage, queue = prepared(plan, folder, max(0, trials - 10 * _CARRIED_OUT))
    evaluate, spent = make_evaluator(plan), defaultdict(list)
    with storage.written_fast():
        carry_out_next(plan, evaluate, storage)  # reads what every later one knows
        busy = []
        with timed(spent):
            end = time.perf_counter() + _LONGEST
            while len(busy) < _CARRIED_OUT and time.perf_counter() < end:
                began = time.process_time()
                assert carry_out_next(plan, evaluate, storage)
                busy.append(time.process_time() - began)
    medians = [1000 * statistics.median(spent[name] or [0.0]) for name in PARTS]
    total = [1000 * each for each in (statistics.median(busy), min(busy), max(busy))]
    return [sampler, f"{trials:,}", *(f"{each:.1f}" for each in (queue, *medians)), _spread(total)]


def _spread(three: list[float]) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*three)


def measure_large(folder: Path) -> list[str]:
    """Seconds that looking at a study of 10,000 trials takes, from opening it."""
    config = configfile.read(folder / "config.yaml")
    lines = []
    for name, look in (
        ("status", lambda storage: (progress(storage), best_so_far(storage, config.budgets))),
        ("records", lambda storage: write_records(folder, storage)),
    ):
        began = time.process_time()
        storage = study.load(folder, config.name)
        look(storage)
        lines.append(f"{name} of 10,000 trials: {time.process_time() - began:.2f} s of a core")
        again = time.process_time()
        look(storage)
        lines[-1] += f", again {time.process_time() - again:.2f} s"
    return lines


class Watch(Stop):
    """Stops a launch so many seconds after its workers' first trial.

    Args:
        seconds: How long to watch.
        known: Trials finished before.
    """

    def __init__(self, seconds: float, known: int) -> None:
        super().__init__(None)
        self.known, self.seconds, self.launched, self.done = known, seconds, time.monotonic(), 0
        self.first: float | None = None
        self.busy = 0.0

    def show(self, storage: Storage) -> None:
        self.done = progress(storage).finished - self.known
        if self.first is None and self.done:
            self.first, self.busy, self.known = time.monotonic(), time.process_time(), self.known + self.done

    def due(self) -> bool:
        now = time.monotonic()
        return now > (self.launched + 120 if self.first is None else self.first + self.seconds)


def coordinate(folder: Path, seconds: float) -> str:
    """The coordinator's share of a core beside two workers, how soon they take trials and how many."""
    plan = planned(6_000, "qmc", folder)
    storage, _ = prepared(plan, folder, 1_000)
    watch = Watch(seconds, 1_000)
    with locked(folder) as lock, storage.written_fast(), LocalWorkers(folder, plan.config, 2, lock) as workers:
        launch = Launch(plan, storage, workers, watch, watch.show)
        launch.search()
        assert watch.first is not None
        watched = time.monotonic() - watch.first
        share = 100 * (time.process_time() - watch.busy) / watched
        launch.drain()
    return (
        f"coordinator: {share:.1f} % of a core beside two workers, which began {watch.first - watch.launched:.1f} s "
        f"after it and did {watch.done / watched:.0f} trials a second"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, required=True, help="the file for the table")
    path = parser.parse_args().write
    with tempfile.TemporaryDirectory() as temporary:
        rows = [
            measure(sampler, trials, Path(temporary, str(number))) for number, (sampler, trials) in enumerate(ARMS)
        ]
        looks = [*measure_large(Path(temporary, "2")), coordinate(Path(temporary, "watched"), _WATCHED)]
    lines = [
        *heading("Bookkeeping, measured", "make bench"),
        f"What a trial takes besides its training, in milliseconds: medians of {_CARRIED_OUT} trials of a planted "
        "truth, in a study that has as many as the row says. `processor` is what it takes of a core, all parts and "
        "what is between them; the parts are by the clock.",
        "",
        *markdown(("sampler", "trials", "queue", *PARTS, "processor, median (min to max)"), rows),
        *(f"- {look}" for look in looks),
    ]
    text = "".join(f"{line}\n" for line in lines)
    Console().print(Markdown(text))
    path.write_text(text)


if __name__ == "__main__":
    main()
