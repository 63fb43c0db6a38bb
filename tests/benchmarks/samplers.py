"""Which sampler, and which recommendation: regret after so many trials, on truths that are known.

    make bench-samplers

Repeats are kept one a line in a file given with --kept, so a long measurement can be stopped and continued, and are
made into tables by --write. Without NATS-Bench's table only the planted surfaces are measured.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import numpy as np
import optuna
from benchmarks.truths import NATS, NATS_NOISE, PLANTED_NOISE, Nats, Truth, planted
from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

from search.samplers import distributions, named_sampler
from search.surrogate import Surrogate, recommend

AIMED = ("qmc", "band", "macs", "random", "tpe", "gp", "nsga2")
NATIVE = {"tpe": TPESampler, "nsga2": NSGAIISampler, "random": RandomSampler, "gp": GPSampler}
CHECKPOINTS = (30, 50, 150)
LONGEST = {"gp": 30}
"""The others are measured up to 150 trials; Optuna's GP needs a second for one."""
SPREADS = ("qmc", "band")
"""Whose trials the coverage of the surrogate's intervals is measured after."""
_QUANTILES = (0.674, 1.282, 1.960)


def search(truth: Truth, sampler: str, trials: int, seed: int, native: bool = False):
    """Filters, accuracies and whether they fit the budget, of a search by one worker.

    A native sampler proposes from the whole space and is told the constraint; what breaks the budget is trained too.
    """
    inner = NATIVE[sampler](seed=seed) if native else named_sampler(sampler, truth.space, truth.cost_model, seed)
    study = optuna.create_study(direction="maximize", sampler=inner)
    for proposal in range(trials):
        attrs = {"proposal": proposal, "budget": str(truth.budget), "origin": sampler}
        study.enqueue_trial({}, user_attrs=attrs)
    rng = np.random.default_rng([seed, 1])
    filters, accuracy = [], []
    for _ in range(trials):
        trial = study.ask(distributions(truth.space))
        filters.append([trial.params[name] * truth.space.multiple for name, _ in truth.space.dimensions()])
        accuracy.append(truth.run(filters[-1], rng))
        cost = int(truth.cost_model.table(np.array(filters[-1:]), truth.budget.cost)[0])
        trial.set_constraint(str(truth.budget), cost / truth.budget.limit - 1)
        study.tell(trial, accuracy[-1])
    filters = np.array(filters)
    fits = truth.cost_model.table(filters, truth.budget.cost) <= truth.budget.limit
    return filters, np.array(accuracy), fits


def regrets(truth: Truth, filters, accuracy, fits):
    """Regret, points, of the luckiest trial within the budget and of the surrogate's recommendation."""
    luckiest = truth.regret(filters[np.where(fits, accuracy, -1).argmax()]) if fits.any() else None
    surrogate = Surrogate.fit(filters, accuracy, seed=0)
    return luckiest, truth.regret(recommend(surrogate, truth.pool, 1, [])[0].filters)


def covered(truth: Truth, sampler: str, runs: int, seed: int):
    """Shares of the pool whose smooth accuracy is within the surrogate's 50, 80 and 95 % intervals."""
    filters, accuracy, _ = search(truth, sampler, runs, seed)
    some = truth.pool[np.random.default_rng(seed).permutation(len(truth.pool))[:1000]]
    mean, sd = Surrogate.fit(filters, accuracy, seed=0).predict(some)
    error = np.abs(truth.smooth(some) - mean)
    return [float(np.mean(error <= quantile * sd)) for quantile in _QUANTILES]


def measure(truth: Truth, sampler: str, native: bool, repeat: int, checkpoints=CHECKPOINTS):
    """One repeat of one arm as a record."""
    checkpoints = [trials for trials in checkpoints if trials <= LONGEST.get(sampler, max(checkpoints))]
    found = search(truth, sampler, checkpoints[-1], repeat, native)
    scored = {trials: regrets(truth, *(each[:trials] for each in found)) for trials in checkpoints}
    return {"truth": truth.name, "sampler": sampler, "native": native, "repeat": repeat, "regret": scored}


def measure_coverage(truth: Truth, sampler: str, repeat: int):
    """One repeat of the coverage as a record."""
    shares = {runs: covered(truth, sampler, runs, repeat) for runs in (15, 30, 60, 150)}
    name = f"coverage after {sampler}"
    return {"truth": truth.name, "sampler": name, "native": False, "repeat": repeat, "shares": shares}


def fit_milliseconds(truth: Truth, runs: int) -> float:
    rng = np.random.default_rng(0)
    filters = rng.choice(truth.pool, runs, replace=False)
    accuracy = np.array([truth.run(row, rng) for row in filters])
    taken = []
    for _ in range(5):
        start = time.process_time()
        Surrogate.fit(filters, accuracy, seed=0)
        taken.append(1000 * (time.process_time() - start))
    return float(np.median(taken))


def continue_file(path: Path, truths: list[Truth], arms, repeats: range) -> None:
    """Append the repeats that the file lacks."""
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(each["truth"], each["sampler"], each["native"], each["repeat"]) for each in kept}
    with path.open("a") as file:
        for repeat in repeats:
            for truth in truths:
                for sampler, native in arms:
                    if (truth.name, sampler, native, repeat) not in done:
                        print(json.dumps(measure(truth, sampler, native, repeat)), file=file, flush=True)
                for sampler in SPREADS:
                    if (truth.name, f"coverage after {sampler}", False, repeat) not in done:
                        print(json.dumps(measure_coverage(truth, sampler, repeat)), file=file, flush=True)


def median(values) -> str:
    """Median and its 95 % interval by order statistics (binomial, no assumption on the distribution)."""
    values = np.sort(values)
    half = 0.98 * np.sqrt(len(values))
    low, high = (
        max(0, int(np.floor(len(values) / 2 - half))),
        min(len(values) - 1, int(np.ceil(len(values) / 2 + half))),
    )
    return f"{np.median(values):.2f} ({values[low]:.2f}-{values[high]:.2f})"


def tables(kept, truths: list[Truth]) -> Iterator[str]:
    """The report, a line at a time."""
    groups, shares = defaultdict(list), defaultdict(list)
    for each in kept:
        for trials, pair in each.get("regret", {}).items():
            groups[each["truth"], each["sampler"], each["native"], int(trials)].append(pair)
        for runs, three in each.get("shares", {}).items():
            shares[each["truth"], each["sampler"].split()[-1], int(runs)].append(three)
    for truth in truths:
        yield from _regret_table(truth, groups)
    yield "## Coverage of the surrogate's intervals\n"
    yield "Share of the schedules within the budget whose smooth accuracy is in the interval; nominal 50, 80, 95 %.\n"
    yield "| truth | sampler | trials | 50 % | 80 % | 95 % | repeats |"
    yield "|" + " --- |" * 7
    for (name, sampler, runs), each in sorted(shares.items()):
        percent = " | ".join(f"{100 * share:.0f}" for share in np.mean(each, axis=0))
        yield f"| {name} | {sampler} | {runs} | {percent} | {len(each)} |"
    yield "\n## Time of one fit\n"
    times = ", ".join(f"{fit_milliseconds(truths[0], runs):.0f} ms at {runs} runs" for runs in (30, 256, 1000))
    yield f"{times} (median of 5, processor time of one thread)."


def _regret_table(truth: Truth, groups) -> Iterator[str]:
    rule = f"the best within {truth.budget} has {100 * truth.best:.2f} %"
    yield f"## {truth.name}\n\nRegret in points, median (95 % interval, below 6 repeats the range); {rule}.\n"
    heads = [f"{what}, {trials}" for what in ("luckiest", "surrogate") for trials in CHECKPOINTS]
    yield "| sampler | " + " | ".join(heads) + " | repeats |"
    yield "| --- |" + " --- |" * (len(heads) + 1)
    arms = [(name, False) for name in AIMED] + [(name, True) for name in NATIVE]
    for sampler, native in arms:
        cells = [groups.get((truth.name, sampler, native, trials), []) for trials in CHECKPOINTS]
        if not cells[0]:
            continue
        shown = [
            median([100.0 if pair[i] is None else pair[i] for pair in cell]) if cell else ""
            for i in (0, 1)
            for cell in cells
        ]
        name = f"{sampler}, Optuna's own" if native else sampler
        yield f"| {name} | " + " | ".join(shown) + f" | {len(cells[0])} |"
    yield ""


def heading(nats: Nats | None) -> Iterator[str]:
    yield "# Samplers and the surrogate, measured\n"
    packages = ", ".join(f"{name} {version(name)}" for name in ("optuna", "scikit-learn", "scipy", "numpy", "torch"))
    yield (
        f"Made by `make bench-samplers`, {datetime.now(UTC):%Y-%m-%d}, Python {python_version()}, {packages}; as many "
        "repeats as each row says, which `--truths`, `--arms` and `--repeats` choose.\n"
    )
    yield (
        "`luckiest`: the best score among the trials within the budget; `surrogate`: the best posterior mean among "
        "all schedules within it. The numbers behind them are trials. `Optuna's own` proposes from the whole space "
        "and is told the constraint, and what breaks the budget counts as a trial; all others stay within the budget. "
        f"Normal noise of sd {NATS_NOISE} (NATS) and {PLANTED_NOISE} (planted) is added to every score.\n"
    )
    if nats:
        left = nats.accuracy - nats.smooth
        yield (
            "NATS-Bench's recommendations are judged by a quartic polynomial in log2 filters fitted to all "
            f"{len(left):,} rows: R2 {1 - left.var() / nats.accuracy.var():.3f}, residual sd {100 * left.std():.2f} "
            "points, the table's own seed noise included.\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--arms", nargs="+", default=[*AIMED, *(f"own-{name}" for name in NATIVE)])
    parser.add_argument("--truths", default="", help="only those whose name contains this")
    parser.add_argument("--kept", type=Path, default=Path("build/samplers.jsonl"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    nats = Nats.read() if NATS.exists() else None
    truths = [*(nats.truths() if nats else ()), *planted()]
    chosen = [truth for truth in truths if options.truths in truth.name]
    arms = [(name.removeprefix("own-"), name.startswith("own-")) for name in options.arms]
    options.kept.parent.mkdir(parents=True, exist_ok=True)
    continue_file(options.kept, chosen, arms, range(options.repeats))
    if options.write:
        kept = [json.loads(line) for line in options.kept.read_text().splitlines()]
        options.write.write_text("\n".join([*heading(nats), *tables(kept, truths)]) + "\n")


if __name__ == "__main__":
    main()
