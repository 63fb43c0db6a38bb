"""How often whole studies err and whether their search finds what is planted, counted over rehearsed studies.

`python -m search.loopcalibration` writes the tables of `studies/calibration/loop` and the README made from them. What
the decision alone does, over many more truths, is the business of `calibration`.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from scipy.special import betaincinv

from search.calibration import ALPHA, DECIDED, Row, lower_limit, made_by, main, markdown_table, percent, write_rows
from search.config import SearchConfig, StudyConfig
from search.pages import fill
from search.plan import StudyPlan, make_plan
from search.rehearsal import Rehearsed, Truth, rehearse
from search.simulation import DEFAULTS, MARGIN

SEED = 20_261_124
STUDIES = 200
FOUND = 0.8
"""The least share of studies asked for that publish a schedule within a margin of the best, where doubling is far."""

FAR = 3  # margins of regret from which on something better must be found

_TRIALS_STUDIES = 50
_STRIDE = 10_000  # seeds from one cell's first study to the next one's
_DEFAULT_SEARCH = SearchConfig()


@dataclass(frozen=True)
class LoopCell:
    """A planted truth and how it is searched; the rest of the configuration is the default.

    Attributes:
        best_ratio: See `SurfaceConfig`, as the next two.
        strength: How fast accuracy falls off on both sides of the best ratio.
        size_gain: What more filters bring.
        noise: Sd of a run, in points; a schedule's own is up to one and a half times more or less.
        trials: Of each study.
        seeds_per_trial: Runs of each trial.
    """

    best_ratio: float
    strength: float
    size_gain: float
    noise: float
    trials: int = _DEFAULT_SEARCH.trials
    seeds_per_trial: int = _DEFAULT_SEARCH.seeds_per_trial

    def plan(self) -> StudyPlan:
        """The study, under two budgets that favour different schedules."""
        surface = {"best_ratio": self.best_ratio, "strength": self.strength, "size_gain": self.size_gain}
        table = {"surface": surface, "images": {}, "noise_sd": self.noise / 100, "noise_spread": 1.5}
        search = {"trials": self.trials, "seeds_per_trial": self.seeds_per_trial}
        budgets = ["params <= 1500", "activations <= 500"]
        return make_plan(
            StudyConfig.model_validate({"name": "loop", "table": table, "budgets": budgets, "search": search})
        )


def cells() -> list[LoopCell]:
    """The cells of the acceptance.

    Doubling is best; next to best; just beyond the margin; and in three cells far beyond it. In one of these the other
    rules are far off too, so that nothing but the search can find what is better.
    """
    return [
        LoopCell(2.0, 0.15, 0.1, 0.5),
        LoopCell(1.7, 0.15, 0.1, 0.15),
        LoopCell(1.41, 0.15, 0.1, 0.5),
        LoopCell(1.0, 0.15, 0.3, 0.5),
        LoopCell(4.0, 0.15, 0.1, 0.5),
        LoopCell(0.71, 0.1, 0.3, 1.0),
    ]


def trial_cells() -> list[LoopCell]:
    """One truth that is hard to find, searched with ever more trials: reported, not accepted."""
    return [LoopCell(4.0, 0.15, 0.3, 1.0, *search) for search in product((24, 32, 48, 64), (1, 4))]


def tally(cell: LoopCell, studies: int, first_seed: int, tests: int) -> list[Row]:
    """Rehearsed studies of one cell, counted; a row for each budget, as the table shows them.

    Args:
        cell: The truth and the search.
        studies: How many studies; their seeds count up.
        first_seed: Of the first.
        tests: Rows of the table, for which `wrong_low` is adjusted as in `calibration.tally`. The verdicts of a row
            are independent; those of a study under its two budgets are not.
    """
    plan = cell.plan()
    truths = {budget: Truth.of(plan, budget) for budget in plan.config.budgets}
    done = [each for seed in range(first_seed, first_seed + studies) for each in rehearse(plan, seed, truths)]
    rows: list[Row] = []
    for budget, truth in truths.items():
        rules = [fitted.schedule for fitted in plan.anchors if fitted.budget == budget]
        verdicts = [each for each in done if each.case.budget == budget]
        known = {
            "cost": budget.cost,
            "limit": budget.limit,
            "regret": round(verdicts[0].regret / MARGIN, 3),
            "rules_lack": round(truth.shortfall(*rules) / MARGIN, 3),
        }
        rows.append({**vars(cell), **known, **_counts(verdicts, tests)})
    return rows


def _counts(verdicts: Sequence[Rehearsed], tests: int) -> Row:
    outcomes = [each.verdict.outcome for each in verdicts]
    errors = sum(each.wrong(MARGIN) for each in verdicts)
    unexplored = [each.unexplored for each in verdicts if each.unexplored is not None]
    return {
        "studies": len(verdicts),
        "near_optimal": outcomes.count("near-optimal"),
        "not_near_optimal": outcomes.count("not near-optimal"),
        "undecided": outcomes.count("undecided"),
        "wrong": errors,
        "wrong_low": round(lower_limit(errors, len(verdicts), ALPHA / tests), 5),
        "wrong_of_space": sum(each.wrong_of_space(MARGIN) for each in verdicts),
        "unexplored": round(fmean(unexplored), 3) if unexplored else "",
        "found": sum(each.published_shortfall <= MARGIN for each in verdicts),
        "found_confirmed": sum(each.confirmed_shortfall <= MARGIN for each in verdicts),
        "shortfall": round(fmean(each.published_shortfall for each in verdicts) / MARGIN, 3),
        "runs": round(fmean(each.runs for each in verdicts), 1),
    }


def tallies(every: Sequence[LoopCell], studies: int, seed: int) -> list[Row]:
    """Two rows a cell, each cell from seeds of its own."""
    return [
        row
        for number, cell in enumerate(every)
        for row in tally(cell, studies, seed + number * _STRIDE, tests=2 * len(every))
    ]


def must_decide(row: Row) -> bool:
    """Whether the acceptance asks for a decision here: noise of one margin, a regret of 0 or at least two margins.

    Whole filters leave a regret of some hundredths where doubling is planted; a tenth of a margin counts as 0.
    """
    return math.isclose(row["noise"] / 100, MARGIN) and (row["regret"] < 0.1 or row["regret"] >= 2)


def faults(rows: Sequence[Row]) -> list[str]:
    """What breaks the acceptance: cells that surely err too often, decide too seldom, or do not find what is there."""
    found = []
    for row in rows:
        name = f"ratio {row['best_ratio']}, noise {row['noise']}, {row['cost']} <= {row['limit']}"
        if row["wrong_low"] > ALPHA:
            found.append(f"{name}: {row['wrong']} of {row['studies']} verdicts are wrong")
        if must_decide(row) and row["studies"] - row["undecided"] < DECIDED * row["studies"]:
            found.append(f"{name}: {row['undecided']} of {row['studies']} are undecided")
        if row["regret"] >= FAR and row["found"] < FOUND * row["studies"]:
            found.append(f"{name}: {row['found']} of {row['studies']} find what is better")
    return found


def write(folder: Path) -> list[str]:
    """Measure everything and write the tables and their README; what breaks the acceptance, as `faults` says it."""
    tables = {
        "cells": tallies(cells(), STUDIES, SEED),
        "trials": tallies(trial_cells(), _TRIALS_STUDIES, SEED + _STRIDE * len(cells())),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_rows(folder / f"{name}.csv", rows)
    (folder / "README.md").write_text(page(tables, made_by(SEED)), encoding="utf-8")
    return faults(tables["cells"])


def page(tables: Mapping[str, Sequence[Row]], made: str) -> str:
    """The README of the tables.

    Args:
        tables: Rows by name, as `write` makes them.
        made: When, with what and from which seed.
    """
    every = tables["cells"]
    far = [row for row in every if row["regret"] >= FAR]
    values = {
        "cells": every,
        "far_cells": far,
        "trials": tables["trials"],
        "faults": faults(every),
        "made": made,
        "worst": max(row["wrong"] / row["studies"] for row in every),
        "worst_of_space": max(row["wrong_of_space"] / row["studies"] for row in every),
        "least_decided": min(1 - row["undecided"] / row["studies"] for row in every if must_decide(row)),
        "least_found": min(row["found"] / row["studies"] for row in far),
        "alpha": ALPHA,
        "decided": DECIDED,
        "asked": FOUND,
        "far": FAR,
        "margin": MARGIN,
        "confirm": DEFAULTS,
        "search": _DEFAULT_SEARCH,
        "anchors": len(trial_cells()[0].plan().anchors),
    }
    return fill("loop.md", values, {"percent": percent, "verdicts": _verdicts, "finds": _finds, "searched": _searched})


def _truth(row: Row) -> Row:
    return {
        "best ratio": row["best_ratio"],
        "noise": row["noise"],
        "budget": f"{row['cost']} <= {row['limit']}",
        "regret, margins": row["regret"],
    }


def _verdicts(rows: Sequence[Row]) -> str:
    return markdown_table(
        [
            {
                **_truth(row),
                "`near-optimal`": row["near_optimal"],
                "`not near-optimal`": row["not_near_optimal"],
                "undecided": row["undecided"],
                "wrong": _share(row, "wrong"),
                "wrong of the whole space": _share(row, "wrong_of_space"),
                "unexplored, mean": row["unexplored"],
                "runs, mean": row["runs"],
            }
            for row in rows
        ]
    )


def _finds(rows: Sequence[Row]) -> str:
    return markdown_table([{**_truth(row), **_finding(row)} for row in rows])


def _searched(rows: Sequence[Row]) -> str:
    return markdown_table(
        [
            {
                "trials": row["trials"],
                "runs each": row["seeds_per_trial"],
                **_truth(row),
                "undecided": row["undecided"],
                "wrong": row["wrong"],
                **_finding(row),
            }
            for row in rows
        ]
    )


def _finding(row: Row) -> Row:
    return {
        "the best rule lacks": row["rules_lack"],
        "published within a margin": _share(row, "found"),
        "a challenger is": _share(row, "found_confirmed"),
        "published lacks, mean": row["shortfall"],
    }


def _share(row: Row, column: str) -> str:
    """A share with its two-sided limits at 95 %, see `calibration.lower_limit`; in per cent, without the sign."""
    count, of = row[column], row["studies"]
    high = float(betaincinv(count + 1, of - count, 1 - ALPHA / 2)) if count < of else 1.0
    low = lower_limit(count, of, ALPHA / 2)
    return f"{100 * count / of:.3g} ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    sys.exit(main(write, Path("studies/calibration/loop")))
