"""Predicted training memory beside what a GPU measured, as the report shows it.

A projection of the storage; decides nothing. On a CPU memory is not measured and there is nothing to show.
"""

from dataclasses import dataclass

import numpy as np

from search.cost import CostModel, amount
from search.schedule import FilterSchedule
from search.study import PURPOSES, Storage

_MOST_ROWS = 12


@dataclass(frozen=True)
class MemoryRow:
    """A schedule trained with so many replicas in one pass: bytes in words, measured allocation over prediction."""

    schedule: str
    replicas: int
    predicted: str
    allocated: str
    reserved: str
    ratio: str


@dataclass(frozen=True)
class MemoryTable:
    """What was measured.

    Attributes:
        rows: From the least predicted to the most, evenly thinned out where there are many.
        measurements: How many there are, one for each schedule and number of replicas.
        least: The smallest ratio of allocation to prediction among all of them.
        most: The largest.
    """

    rows: tuple[MemoryRow, ...]
    measurements: int
    least: str
    most: str


@dataclass(frozen=True)
class _Measured:
    schedule: FilterSchedule
    replicas: int
    predicted: int
    allocated: int
    reserved: int

    @property
    def ratio(self) -> float:
        return self.allocated / self.predicted


def memory_table(cost_model: CostModel, storage: Storage) -> MemoryTable | None:
    """Every measured schedule and number of replicas; None where nothing was measured.

    The prediction for a pass is that for one run, which budgets bind on, times its replicas.

    Args:
        cost_model: Predicts.
        storage: The study's.
    """
    found = _measured(cost_model, storage)
    if not found:
        return None
    shown = np.unique(np.linspace(0, len(found) - 1, min(len(found), _MOST_ROWS)).round().astype(int))
    ratios = [each.ratio for each in found]
    return MemoryTable(
        tuple(_row(found[place]) for place in shown), len(found), f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    )


def _measured(cost_model: CostModel, storage: Storage) -> list[_Measured]:
    """The largest peaks of each schedule and number of replicas, from the least predicted to the most."""
    peaks: dict[tuple[FilterSchedule, int], tuple[int, int]] = {}
    for purpose in PURPOSES:
        for trial in storage.trials(purpose):
            for run in trial.user_attrs.get("runs", ()):
                if "peak_reserved_bytes" in run:
                    key = FilterSchedule.parse(trial.user_attrs["schedule"]), run["replicas"]
                    allocated, reserved = peaks.get(key, (0, 0))
                    peaks[key] = max(allocated, run["peak_bytes"]), max(reserved, run["peak_reserved_bytes"])
    measured = [
        _Measured(schedule, replicas, replicas * cost_model.costs(schedule)["memory"], *peak)
        for (schedule, replicas), peak in peaks.items()
    ]
    return sorted(measured, key=lambda each: (each.predicted, each.schedule.filters))


def _row(measured: _Measured) -> MemoryRow:
    return MemoryRow(
        str(measured.schedule),
        measured.replicas,
        amount("memory", measured.predicted),
        amount("memory", measured.allocated),
        amount("memory", measured.reserved),
        f"{measured.ratio:.2f}",
    )
