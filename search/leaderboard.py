"""All schedules a study tried, ranked within each budget: a table for the terminal, and leaderboard.csv.

A pure projection. What is confirmed stands before what the search alone has seen, whatever their scores: a search's
best is mostly luck.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType

from search.cost import Budget, Costs
from search.findings import Confirmed, Findings
from search.folder import write_whole
from search.narrowing import Column, NarrowingTable
from search.records import csv_text
from search.schedule import FilterSchedule
from search.study import Storage, costs_of
from search.wording import origin_text, share, short_budget

COLUMNS = (
    "rank", "budget", "schedule", "origin", "test_accuracy", "test_low", "test_high", "test_runs",
    "validation_accuracy", "validation_se", "validation_runs", "params", "macs", "activations", "memory_bytes",
)  # fmt: skip
"""Of leaderboard.csv. `rank` is within the `budget`, from 1; a schedule has a row for every budget it meets, and one
with neither where it meets none. `origin` is a rule's name, `surrogate`, or the sampler that proposed it. `test_*`:
mean over confirmation runs with its interval, where confirmed; `validation_*`: mean over the search's runs with its
standard error, where searched. Accuracies are fractions, as `training.score` has them."""
_IMPORTANCE = {
    "#": 5, "schedule": 5, "origin": 4, "test %": 5, "validation %": 3, "params": 2, "MACs": 1, "act.": 0
}  # fmt: skip
_UNITS = ("", "k", "M", "G", "T", "P", "E")
_SHOWN = 5
"""Schedules of each budget in the terminal."""


@dataclass(frozen=True)
class Entry:
    """A schedule's place within a budget.

    Attributes:
        budget: None for a schedule that meets none.
        rank: From 1; None likewise.
        schedule: It.
        origin: What put it forward.
        confirmed: Its confirmation; None without one.
        scores: Validation scores of the search's runs, shape `(n_runs,)`.
        costs: What it costs.
    """

    budget: Budget | None
    rank: int | None
    schedule: FilterSchedule
    origin: str
    confirmed: Confirmed | None
    scores: tuple[float, ...]
    costs: Costs

    @property
    def validation(self) -> tuple[float | None, float | None]:
        """Mean over the search's runs and its standard error; None where runs are too few for it."""
        runs = len(self.scores)
        mean = float(np.mean(self.scores)) if runs else None
        return mean, float(np.std(self.scores, ddof=1) / np.sqrt(runs)) if runs > 1 else None


def write(folder: Path, findings: Findings, storage: Storage) -> list[Entry]:
    """Write leaderboard.csv.

    Returns:
        What is in it, in the order of its rows.

    Raises:
        StorageError: It cannot be written.
    """
    entries = leaderboard(findings, storage)
    write_whole(folder / "leaderboard.csv", csv_text(COLUMNS, map(_row, entries)))
    return entries


def leaderboard(findings: Findings, storage: Storage) -> list[Entry]:
    """Every schedule tried or confirmed, by budget in the configuration's order and then by rank."""
    tried = _tried(findings, storage)
    entries, placed = [], set()
    for budget in findings.plan.config.budgets:
        within = sorted((each for each in tried if budget.admits(each.costs)), key=_merit, reverse=True)
        entries += [replace(each, budget=budget, rank=rank) for rank, each in enumerate(within, start=1)]
        placed |= {each.schedule for each in within}
    return entries + [each for each in tried if each.schedule not in placed]


def _tried(findings: Findings, storage: Storage) -> list[Entry]:
    """What the study has of each schedule, in the order they came up."""
    confirmed = {
        each.schedule: each
        for finding in (*findings.explored, *findings.findings)
        for each in (*finding.challengers, finding.rule)
    }
    scores: dict[FilterSchedule, list[float]] = defaultdict(list)
    origins = {schedule: each.origin for schedule, each in confirmed.items()}
    costs = {schedule: each.costs for schedule, each in confirmed.items()}
    for trial in storage.trials("search"):
        if not trial.state.is_finished() or "costs" not in trial.user_attrs:
            continue
        schedule = FilterSchedule.parse(trial.user_attrs["schedule"])
        origins.setdefault(schedule, trial.user_attrs["origin"])
        costs.setdefault(schedule, costs_of(trial))
        scores[schedule] += [run["accuracy"] for run in trial.user_attrs.get("runs", ()) if "accuracy" in run]
    return [
        Entry(None, None, schedule, origins[schedule], confirmed.get(schedule), tuple(scores[schedule]), priced)
        for schedule, priced in costs.items()
    ]


def _merit(entry: Entry) -> tuple[float, float]:
    accuracy = None if entry.confirmed is None else entry.confirmed.accuracy
    mean, _ = entry.validation
    return -1.0 if accuracy is None else accuracy.mean, -1.0 if mean is None else mean


def _row(entry: Entry) -> dict[str, Any]:
    mean, error = entry.validation
    row: dict[str, Any] = {
        "rank": entry.rank,
        "budget": None if entry.budget is None else str(entry.budget),
        "schedule": str(entry.schedule),
        "origin": entry.origin,
        "validation_accuracy": mean,
        "validation_se": error,
        "validation_runs": len(entry.scores),
        "params": entry.costs.params,
        "macs": entry.costs.macs,
        "activations": entry.costs.activations,
        "memory_bytes": entry.costs.memory,
    }
    if entry.confirmed is not None:
        row["test_runs"] = entry.confirmed.runs
        if (accuracy := entry.confirmed.accuracy) is not None:
            row |= {"test_accuracy": accuracy.mean, "test_low": accuracy.low, "test_high": accuracy.high}
    return row


def tables(entries: Sequence[Entry]) -> Group:
    """The first few schedules of each budget; narrow consoles leave out costs first, then what the search saw."""
    shown = [
        entry for entry in entries if entry.budget is not None and entry.rank is not None and entry.rank <= _SHOWN
    ]
    rows = [(entry.budget, _cells(entry)) for entry in shown]
    widths = [max(map(len, column)) for column in zip(_IMPORTANCE, *(cells for _, cells in rows), strict=True)]
    columns = [
        Column(heading, importance, right=heading not in ("schedule", "origin"), width=width)
        for (heading, importance), width in zip(_IMPORTANCE.items(), widths, strict=True)
    ]
    parts: list[RenderableType] = []
    for budget, group in groupby(rows, key=itemgetter(0)):
        parts += [NarrowingTable(columns, [cells for _, cells in group], title=short_budget(budget)), ""]
    return Group(*parts)


def note(entries: Sequence[Entry], folder: Path, confidence: float) -> str:
    """What the table's numbers mean, and where the rest is."""
    schedules = len({entry.schedule for entry in entries})
    return (
        f"test: confirmed, with the {share(confidence)} interval of the mean over so many runs; validation: the "
        f"search's, with its standard error. All {schedules} schedules and memory: {folder / 'leaderboard.csv'}"
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    test, confirmed = "-", entry.confirmed
    if confirmed is not None and confirmed.accuracy is not None:
        interval = confirmed.accuracy
        test = _accuracy(interval.mean, (interval.high - interval.low) / 2, confirmed.runs)
    mean, error = entry.validation
    validation = "-" if mean is None else _accuracy(mean, error, len(entry.scores))
    counts = (entry.costs.params, entry.costs.macs, entry.costs.activations)
    return str(entry.rank), str(entry.schedule), origin_text(entry.origin), test, validation, *map(_short, counts)


def _accuracy(mean: float, either_way: float | None, runs: int) -> str:
    spread = "" if either_way is None else f"±{100 * either_way:.2f}"
    return f"{100 * mean:.2f}{spread} ({runs})"


def _short(count: int | None) -> str:
    """A count in four characters: `672`, `1.4k`, `40k`, `11M`."""
    if count is None:
        return "-"
    value, units = float(count), iter(_UNITS)
    unit = next(units)
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"
