"""What a search may leave out: learning curves of real trials, and what stopping early, or doing less, makes of them.

    PYTHONPATH=tests OMP_NUM_THREADS=1 python -m benchmarks.pruning --write tests/benchmarks/pruning.md

Trials are those of whole searches, as a study of the configuration with that seed proposes them. Their curves, and the
test accuracy of the schedules recommended after each policy, are kept beside this file; what is kept is not trained
again, so that tables are made from it in minutes. Fashion-MNIST is measured where --fashion names a folder that
torchvision reads.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path

import numpy as np
import optuna
import torch
from benchmarks.pruning_replay import POLICIES, TRAINED, Curves, recommended, reference
from benchmarks.pruning_report import Known, write
from benchmarks.samplers import search
from benchmarks.truths import NATS, Nats, planted

from search import configfile, queues, study
from search.evaluate import Failed, Fidelity
from search.plan import StudyPlan, make_plan
from search.samplers import make_sampler
from search.schedule import FilterSchedule
from search.surrogate import Surrogate, recommend
from search.worker import carry_out_next, make_evaluator

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
CURVES, FRESH = HERE / "pruning_curves.csv", HERE / "pruning_fresh.csv"
BRIEFER = {"digits": (8, 5), "fashion-mnist": (3,)}
"""Epochs of the briefer trainings; each is a one-cycle schedule of its own."""
FASHION_TRIALS = 36
TIMED = {"digits": 8, "fashion-mnist": 3}
TRIALS, SEEDS = (16, 32, 64), (1, 2, 4)
FRESH_RUNS, _FRESH_SEED = 16, 10_000  # of no search here
_SCALE = 10_000  # accuracies are kept in hundredths of a point


def plan_of(name: str, seed: int, folder: Path | None) -> StudyPlan:
    config = configfile.read(CONFIGS / f"{name}.yaml")
    update: dict[str, object] = {"seed": seed}
    if folder:
        update["data"] = config.data.model_copy(update={"path": str(folder)})
        update["search"] = config.search.model_copy(update={"trials": FASHION_TRIALS})
    return make_plan(config.model_copy(update=update))


def collect(name: str, seed: int, plan: StudyPlan, path: Path) -> None:
    """Carry out one search and append its curves: one row per trial and number of epochs."""
    evaluator, full = make_evaluator(plan), plan.config.training.epochs
    rows: list[list[object]] = []

    def evaluate(schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
        for epochs in BRIEFER[name]:
            rows.append([schedule, epochs, *_trained(evaluator, schedule, seeds, replace(fidelity, epochs=epochs))])
        *row, runs = _trained(evaluator, schedule, seeds, fidelity, whole=True)
        rows.append([schedule, full, *row])
        return runs

    sampler = make_sampler(plan.config.search, plan.space, plan.cost_model, seed)
    storage = study.create_in_memory(plan.config, plan.objective.directions, sampler)
    queues.enqueue_missing(storage, plan.proposals())
    while carry_out_next(plan, evaluate, storage):
        pass
    with path.open("a", newline="") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        trials = [trial for trial in storage.trials("search") for _ in range(1 + len(BRIEFER[name]))]
        for trial, (schedule, epochs, *rest) in zip(trials, rows, strict=True):
            assert trial.user_attrs["schedule"] == str(schedule)
            attrs = trial.user_attrs
            write([name, seed, trial.number, attrs["budget"], schedule, attrs["costs"]["macs"], epochs, *rest])


def _trained(evaluator, schedule, seeds, fidelity: Fidelity, whole: bool = False):
    """Seconds, mean validation accuracy after each epoch and every run's at the end, and the runs where `whole`."""
    curve: list[float] = []

    def watch(_: int, accuracy: float) -> bool:
        curve.append(accuracy)
        return False

    started = time.perf_counter()
    runs = evaluator(schedule, seeds, fidelity, "validation", watch if whole else None)
    seconds = time.perf_counter() - started
    finals = [np.nan if isinstance(run, Failed) else run.accuracy for run in runs]
    return [round(seconds, 3), _packed(curve), _packed(finals), *([runs] if whole else [])]


def _packed(values: Iterable[float]) -> str:
    return " ".join("nan" if np.isnan(value) else str(round(_SCALE * value)) for value in values)


def _unpacked(text: str) -> list[float]:
    return [float(value) / _SCALE for value in text.split()]


def _rows(path: Path) -> Iterator[list[str]]:
    if path.exists():
        with path.open(newline="") as file:
            yield from csv.reader(file)


def read_curves(path: Path, plan: StudyPlan) -> list[Curves]:
    """The kept searches of the plan's configuration, trials with a run that diverged left out."""
    name, full, searches = plan.config.name, plan.config.training.epochs, []
    rows = [row for row in _rows(path) if row[0] == name]
    for seed, group in groupby(rows, key=lambda row: int(row[1])):
        trials = [list(each) for _, each in groupby(group, key=lambda row: row[2])]
        trials = [rows for rows in trials if not any("nan" in row[-1] for row in rows)]
        wholes = [next(row for row in rows if int(row[6]) == full) for rows in trials]
        by_epochs = {int(row[6]): [rows[place] for rows in trials] for place, row in enumerate(trials[0])}
        searches.append(
            Curves(
                name,
                seed,
                tuple(row[3] for row in wholes),
                sum(int(row[2]) < len(plan.anchors) for row in wholes),
                np.array([FilterSchedule.parse(row[4]).filters for row in wholes]),
                np.array([int(row[5]) for row in wholes]),
                np.array([_unpacked(row[8]) for row in wholes]),
                {epochs: np.array([_unpacked(row[9]) for row in rows]) for epochs, rows in by_epochs.items()},
                {epochs: np.array([float(row[7]) for row in rows]) for epochs, rows in by_epochs.items()},
            )
        )
    return searches


def replay(plan: StudyPlan, searches: list[Curves]):
    """By policy and search: what it left, what is recommended then, and how that stands by other searches' runs."""
    found = {name: [] for name in POLICIES}
    for curves in searches:
        others = [each for each in searches if each is not curves] or searches
        judge, own = reference(others), plan_with(plan, curves.seed)
        best = {str(budget): _best(plan, budget, judge) for budget in plan.config.budgets}
        for name, policy in POLICIES.items():
            outcome = policy(curves)
            cases = recommended(own, curves, outcome)
            found[name].append((outcome, cases, [_shortfalls(judge, best[case.budget], case) for case in cases]))
    return found


def plan_with(plan: StudyPlan, seed: int) -> StudyPlan:
    return replace(plan, config=plan.config.model_copy(update={"seed": seed}))


def _best(plan: StudyPlan, budget, judge: Surrogate) -> float:
    pool = plan.space.within(budget, plan.cost_model, np.random.default_rng(0))
    return float(judge.predict(pool)[0].max())


def _shortfalls(judge: Surrogate, best: float, case) -> list[float]:
    accuracy, _ = judge.predict(np.array([case.first, case.rule, *case.challengers]))
    strongest = accuracy[2:].max()
    return [100 * (best - accuracy[0]), 100 * (best - strongest), 100 * (strongest - accuracy[1])]


def read_fresh(path: Path) -> Known:
    return {(row[0], FilterSchedule.parse(row[1]).filters): float(row[3]) for row in _rows(path)}


def train_fresh(plan: StudyPlan, wanted: Iterable[tuple[int, ...]], path: Path) -> None:
    """Append the test accuracy of the schedules that the file lacks."""
    evaluator, name = make_evaluator(plan), plan.config.name
    known = read_fresh(path)
    for filters in wanted:
        if (name, filters) in known:
            continue
        schedule = FilterSchedule(filters)
        seeds = plan_with(plan, _FRESH_SEED).seeds("confirm", schedule, 0, FRESH_RUNS)
        runs = evaluator(schedule, seeds, Fidelity.brief(plan.config.training), "test")
        mean = np.mean([0.0 if isinstance(run, Failed) else run.accuracy for run in runs])
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([name, schedule, FRESH_RUNS, f"{mean:.5f}"])


def timings(plan: StudyPlan, curves: Curves, count: int) -> dict[str, float]:
    """Seconds of passes as a share of those of a trial: with fewer seeds, and scored after every epoch."""
    evaluator, fidelity = make_evaluator(plan), Fidelity.brief(plan.config.training)
    taken: dict[str, list[float]] = {}
    for filters in curves.filters[:: len(curves.filters) // count]:
        schedule, seeds = FilterSchedule(tuple(map(int, filters))), range(plan.config.search.seeds_per_trial)
        sides = {"whole": (seeds, None), "watched": (seeds, lambda *_: False)}
        sides |= {f"{n} of {len(seeds)} seeds": (seeds[:n], None) for n in (1, 2)}
        for side, (some, watch) in sides.items():
            started = time.perf_counter()
            evaluator(schedule, some, fidelity, "validation", watch)
            taken.setdefault(side, []).append(time.perf_counter() - started)
    whole = np.array(taken.pop("whole"))
    return {side: float(np.median(np.array(seconds) / whole)) for side, seconds in taken.items()}


def fewer_on_truths(repeats: int) -> dict[tuple[str, int, int], list[float]]:
    """Regret in points by truth, trials and seeds; fewer trials are the first of more."""
    truths = [*(Nats.read().truths() if NATS.exists() else ()), *planted()]
    regrets: dict[tuple[str, int, int], list[float]] = {}
    for truth, repeat in product(truths, range(repeats)):
        filters, _, _ = search(truth, "qmc", max(TRIALS), repeat)
        rng = np.random.default_rng([repeat, 2])
        scores = np.array([[truth.run(row, rng) for _ in range(max(SEEDS))] for row in filters])
        for trials, seeds in product(TRIALS, SEEDS):
            surrogate = Surrogate.fit(np.repeat(filters[:trials], seeds, axis=0), scores[:trials, :seeds].ravel(), 0)
            found = recommend(surrogate, truth.pool, 1, [])[0].filters
            regrets.setdefault((truth.name, trials, seeds), []).append(truth.regret(found))
    return regrets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=6, help="searches of digits, with seeds from 0")
    parser.add_argument("--fashion", type=Path, help="folder with FashionMNIST/raw; one search")
    parser.add_argument("--repeats", type=int, default=8, help="of every truth that is known")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    wanted = [("digits", seed, None) for seed in range(options.studies)]
    if options.fashion:
        wanted.append(("fashion-mnist", 0, options.fashion))
    for name, seed, folder in wanted:
        if (name, str(seed)) not in {(row[0], row[1]) for row in _rows(CURVES)}:
            collect(name, seed, plan_of(name, seed, folder), CURVES)
    measured = []
    for name, folder in {name: folder for name, _, folder in wanted}.items():
        plan = plan_of(name, 0, folder)
        searches = read_curves(CURVES, plan)
        found = replay(plan, searches)
        if name == "digits":  # of the others, fresh runs take hours
            cases = [case for policy in TRAINED for _, cases, _ in found[policy] for case in cases]
            train_fresh(plan, dict.fromkeys(case.first for case in cases), FRESH)
        measured.append((plan, searches, found, timings(plan, searches[0], TIMED[name])))
    if options.write:
        lines = write(measured, read_fresh(FRESH), HERE.parents[1] / "studies", fewer_on_truths(options.repeats))
        options.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
