"""How often the decision errs, what it costs and whether its forecasts hold, measured on known truths.

`python -m search.calibration` writes the tables of `studies/calibration` and the README made from them. Every decision
is `looks.replay`'s, the same that `verdict.decide` makes; nothing of the method is written a second time here.
"""

import csv
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.special import betaincinv

from search import outlook
from search.alternatives import CASES, compare_orders, compare_spendings
from search.looks import Plan, replay
from search.pages import fill
from search.simulation import (
    BEST_ACCURACY,
    COLLAPSED,
    DEFAULTS,
    LOSS,
    MARGIN,
    TEST_IMAGES,
    Cell,
    Collapse,
    Rivals,
    Truth,
    wrong,
)

SEED = 20_261_123
SIMULATIONS = 10_000
ALPHA = 0.05
DECIDED = 0.8
"""The least share of decisions asked for where the regret is 0 or at least two margins, at noise of one margin."""

_CHUNK = 2_500  # simulations at a time, so that memory stays below 200 MB

_PRICED = 1_000  # simulations a row of the table of prices
_COMPARED = 4_000  # simulations a cell for the ways to spend
_STUDIES = 400  # studies for the orders of looks
_ALLOWANCES = (600, 800, 1_000, 1_250, 1_500, 2_000)  # runs a study

Row = Mapping[str, Any]


def cells() -> list[Cell]:
    """The cells of the acceptance: each regret with its least favourable rivals; one margin with both kinds.

    A noise of 0.02 points is a ninth of a test image: there rounding makes the scores, and many of them equal.
    """
    regrets: list[tuple[float, Rivals]] = [
        (0, "alike"), (0.5, "alike"), (1, "alike"), (1, "hopeless"), (2, "hopeless"), (4, "hopeless"),
    ]  # fmt: skip
    every = product(regrets, (0.02, 0.15, 0.5, 1.0), ((1, 1), (2, 1), (1, 2)), (1, 2, 4, 8))
    return [
        Cell(regret, noise, *noises, challengers, rivals)
        for (regret, rivals), noise, noises, challengers in every
        if not (regret == 1 and rivals == "hopeless" and challengers == 1)
    ]


def collapse_cells() -> list[Cell]:
    """Cells with rare collapsed runs, which the method does not promise to judge rightly: reported, not accepted."""
    who: tuple[Collapse, ...] = ("all", "rule", "challengers")
    rivals: dict[float, Rivals] = {0: "alike", 1: "alike", 2: "hopeless"}
    every = product(who, rivals, (0.15, 0.5), (1, 4))
    return [Cell(regret, noise, 1, 1, k, rivals[regret], collapse) for collapse, regret, noise, k in every]


def lower_limit(count: int, of: int, tail: float) -> float:
    """Lower limit of a share (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404), exceeded with probability `tail`.

    Assumes independent draws. Never less than promised, and often a good deal more: it misleads as a test with few.
    """
    return float(betaincinv(count, of - count + 1, tail)) if count else 0.0


def tally(cell: Cell, simulations: int, rng: np.random.Generator, tests: int) -> Row:
    """Simulated confirmations of one cell, counted; as the table shows them.

    Args:
        cell: The truth.
        simulations: How many confirmations.
        rng: Draws the scores.
        tests: Cells of the table, for which `wrong_low` is adjusted: the `lower_limit` of the share of wrong verdicts
            at a tail of 0.05 / tests. It misleads as evidence that a cell is right, for which it is too kind.
    """
    plan = Plan(DEFAULTS.looks, DEFAULTS.confidence, cell.challengers)
    near, not_near, errors, runs = 0, 0, 0, 0
    for first in range(0, simulations, _CHUNK):
        rule, challengers = cell.truth.draw(rng, min(_CHUNK, simulations - first), plan.looks[-1])
        stand = replay(rule, challengers, MARGIN, plan)
        near += int(stand.near_optimal.sum())
        not_near += int(stand.not_near_optimal.sum())
        errors += int(wrong(cell.regret, stand.near_optimal, stand.not_near_optimal).sum())
        runs += int(stand.reached.sum() + stand.runs.sum())
    return {
        **vars(cell),
        "simulations": simulations,
        "near_optimal": near,
        "not_near_optimal": not_near,
        "undecided": simulations - near - not_near,
        "wrong": errors,
        "wrong_low": round(lower_limit(errors, simulations, ALPHA / tests), 5),
        "runs": round(runs / simulations, 1),
    }


def tallies(every: Sequence[Cell], simulations: int, seed: int) -> list[Row]:
    """One row a cell, each drawn from a seed of its own."""
    return [
        tally(cell, simulations, np.random.default_rng([seed, number]), len(every))
        for number, cell in enumerate(every)
    ]


def faults(every: Sequence[Cell], rows: Sequence[Row]) -> list[str]:
    """What breaks the acceptance: cells that surely err too often, or decide too seldom."""
    found = []
    for cell, row in zip(every, rows, strict=True):
        if row["wrong_low"] > ALPHA:
            found.append(f"{cell}: {row['wrong']} of {row['simulations']} verdicts are wrong")
        if cell.must_decide and row["undecided"] > (1 - DECIDED) * row["simulations"]:
            found.append(f"{cell}: {row['undecided']} of {row['simulations']} are undecided")
    return found


def price(noise: float, challengers: int, look: int, simulations: int, rng: np.random.Generator) -> Row:
    """Do the runs named by `outlook.runs_to_decide` decide as often as promised? Of those undecided at a look.

    True regrets are uniform over 0 to 2 margins, all challengers alike: of what is undecided, the hardest half. The
    confirmation goes on to the runs named, at the level `runs_to_decide` reckons with.

    Args:
        noise: Sd of every arm, in points.
        challengers: K.
        look: The look at which the price is asked.
        simulations: Confirmations started.
        rng: Draws regrets and scores.
    """
    plan = Plan(DEFAULTS.looks, DEFAULTS.confidence, challengers)
    tails = dict(zip(plan.looks, plan.tails(), strict=True))
    asked, estimates, decided = 0, [], 0
    for _ in range(simulations):
        truth = Truth(float(rng.uniform(0, 2)) * MARGIN, noise / 100, noise / 100, challengers)
        rule, others = truth.draw(rng, 1, look)
        stand = replay(rule, others, MARGIN, plan)
        if not stand.undecided[0] or stand.reached[0] != look:
            continue
        asked += 1
        found = outlook.moments(rule, others, ~stand.settled, stand.reached)
        estimate = float(outlook.runs_to_decide(found, MARGIN, plan)[0])
        if np.isnan(estimate):
            continue
        runs = int(estimate)
        more, others_more = truth.draw(rng, 1, runs - look)
        unsettled = np.concatenate([others, others_more], -1)[:, ~stand.settled[0]]
        later = Plan((runs,), 1 - 2 * tails.get(runs, tails[plan.looks[-1]]), challengers)
        decided += not replay(np.concatenate([rule, more], -1), unsettled, MARGIN, later).undecided[0]
        estimates.append(runs)
    return {
        "noise": noise,
        "challengers": challengers,
        "look": look,
        "undecided": asked,
        "priced": len(estimates),
        "decided": decided,
        "share": round(decided / len(estimates), 3),
        "median_runs": int(np.median(estimates)),
    }


def prices(simulations: int, seed: int) -> list[Row]:
    """One row for each noise, K and look."""
    every = product((0.5, 1.0), (1, 4), (DEFAULTS.looks[0], DEFAULTS.looks[-1]))
    return [price(*case, simulations, np.random.default_rng([seed, number])) for number, case in enumerate(every)]


def write(folder: Path) -> list[str]:
    """Measure everything and write the tables and their README; what breaks the acceptance, as `faults` says it."""
    every = cells()
    tables = {
        "cells": tallies(every, SIMULATIONS, SEED),
        "collapse": tallies(collapse_cells(), SIMULATIONS, SEED + 1),
        "prices": prices(_PRICED, SEED + 2),
        "spending": compare_spendings(_COMPARED, SEED + 3),
        "orders": compare_orders(_ALLOWANCES, _STUDIES, SEED + 4),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_rows(folder / f"{name}.csv", rows)
    found = faults(every, tables["cells"])
    (folder / "README.md").write_text(page(tables, found, made_by(SEED)), encoding="utf-8")
    return found


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """A table as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def made_by(seed: int) -> str:
    """When a table is made, with what and from which seed."""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}"
    return f"{datetime.now(UTC):%Y-%m-%d} with {versions}, seed {seed}"


def page(tables: Mapping[str, Sequence[Row]], found: Sequence[str], made: str) -> str:
    """The README of the tables.

    Args:
        tables: Rows by name, as `write` makes them.
        found: What breaks the acceptance.
        made: When, with what and from which seed.
    """
    every = tables["cells"]
    must = [row for cell, row in zip(cells(), every, strict=True) if cell.must_decide]
    values = {
        **tables,
        "faults": found,
        "made": made,
        "worst": max(_share(row, "wrong") for row in every),
        "worst_side": max(max(_wrong_sides(row)) for row in every),
        "least": min(1 - _share(row, "undecided") for row in must),
        "alpha": ALPHA,
        "decided": DECIDED,
        "margin": MARGIN,
        "looks": DEFAULTS.looks,
        "confidence": DEFAULTS.confidence,
        "images": TEST_IMAGES,
        "best": BEST_ACCURACY,
        "collapsed": COLLAPSED,
        "loss": LOSS,
        "likely": outlook.LIKELY,
        "cases": CASES,
    }
    return fill("calibration.md", values, {"percent": percent, "table": markdown_table, "summary": _summary})


def percent(share: float) -> str:
    """A share in per cent, three digits."""
    return f"{100 * share:.3g} %"


def _share(row: Row, column: str) -> float:
    return float(row[column] / row["simulations"])


def _wrong_sides(row: Row) -> tuple[float, float]:
    """Shares of wrong `near-optimal` and wrong `not near-optimal` verdicts."""
    near, not_near = _share(row, "near_optimal"), _share(row, "not_near_optimal")
    return near * (row["regret"] >= 1), not_near * (row["regret"] <= 1)


def _summary(rows: Sequence[Row], by: str) -> str:
    """Worst and best over the cells of one regret, kind of rivals and another column."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row[by], row["regret"], row["rivals"]), []).append(row)
    return markdown_table(
        [
            {
                by: key[0],
                "regret, margins": key[1],
                "rivals": key[2],
                "cells": len(group),
                "wrong, at most": percent(max(_share(row, "wrong") for row in group)),
                "`near-optimal`, at most": percent(max(_share(row, "near_optimal") for row in group)),
                "`not near-optimal`, at most": percent(max(_share(row, "not_near_optimal") for row in group)),
                "undecided, at most": percent(max(_share(row, "undecided") for row in group)),
                "runs, mean": round(sum(row["runs"] for row in group) / len(group)),
            }
            for key, group in groups.items()
        ]
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows of equal keys as Markdown, numbers to the right."""
    rule = ["---" if isinstance(value, str) and not value.endswith("%") else "---:" for value in rows[0].values()]
    cells = [[name.replace("_", " ") for name in rows[0]], rule, *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in cells)


def main(write: Callable[[Path], Sequence[str]], folder: Path) -> int:
    """Write the folder, or the one the command names, and what breaks the acceptance; 1 where something does."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else folder
    found = write(folder)
    sys.stdout.write("".join(f"{fault}\n" for fault in found) + f"wrote {folder}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(write, Path("studies/calibration")))
