"""Up to which size replicas train faster in one pass than one after the other, measured on the machine at hand.

Tiny networks leave a processor idle between kernels, which replicas share; of large ones, several overflow its caches.
On two CPUs 8 replicas of plain 8-16-32 trained 1.4 times as fast together on 28x28 images, 32-64-128 at 0.8 times the
speed. Measured once a study and kept in its storage: runs are the same bit for bit only among as many in one pass.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from search.evaluate import Evaluate
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.study import Storage

_REPLICAS = 8
_SIZES = 9
_LARGEST = "replicas_together_to_macs"


@runtime_checkable
class StepSeconds(Protocol):
    """What trains, and can time a step of training; a table of known accuracies cannot."""

    def step_seconds(self, schedule: FilterSchedule, replicas: int) -> float:
        """See `search.training.TrainingEvaluator`."""


def together(plan: StudyPlan, storage: Storage) -> Callable[[FilterSchedule], bool]:
    """Whether a schedule's replicas train in one pass, as measured by `decide`; where nothing was, all do."""
    most = storage.search.user_attrs.get(_LARGEST)

    def small_enough(schedule: FilterSchedule) -> bool:
        return most is None or plan.cost_model.costs(schedule)["macs"] <= most

    return small_enough


def decide(plan: StudyPlan, storage: Storage, evaluate: Evaluate) -> None:
    """Measure unless this study has been, and keep the MACs of the largest schedule whose replicas train together."""
    if _LARGEST in storage.search.user_attrs or not isinstance(evaluate, StepSeconds):
        return
    sizes = _sizes(plan)
    count = count_together(sizes, evaluate)
    largest = None if count == len(sizes) else plan.cost_model.costs(sizes[count - 1])["macs"] if count else 0
    storage.set_once("search", _LARGEST, largest)


def decline(storage: Storage) -> None:
    """Have replicas train one after the other: to measure it ended a process, for lack of memory as a rule."""
    storage.set_once("search", _LARGEST, 0)


def decided(storage: Storage) -> dict[str, int | None]:
    """What was measured, to be recorded; nothing where nothing was."""
    return {_LARGEST: storage.search.user_attrs[_LARGEST]} if _LARGEST in storage.search.user_attrs else {}


def count_together(sizes: Sequence[FilterSchedule], evaluate: StepSeconds) -> int:
    """How many of these, from the smallest on, train faster together."""
    return count_winning(sizes, lambda schedule: _is_faster_together(evaluate, schedule))


def count_winning(sizes: Sequence[FilterSchedule], wins: Callable[[FilterSchedule], bool]) -> int:
    """How many of these, from the smallest on, win; asks the largest first and then halves what is left."""
    if wins(sizes[-1]):
        return len(sizes)
    low, high = 0, len(sizes) - 1  # below low all win, from high on none does
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if wins(sizes[middle]) else (low, middle)
    return low


def _sizes(plan: StudyPlan) -> list[FilterSchedule]:
    """From the space's smallest schedule towards its largest, as far as some budget admits."""
    low, high = np.log([schedule.filters for schedule in (plan.space.smallest, plan.space.largest)])
    shares = np.linspace(0, 1, _SIZES)[:, None]
    multiple = plan.space.multiple
    filters = np.exp((1 - shares) * low + shares * high) / multiple
    sizes = [FilterSchedule(tuple(int(f) for f in row)) for row in np.rint(filters).astype(np.int64) * multiple]
    return [
        size
        for size in dict.fromkeys(sizes)
        if any(budget.admits(plan.cost_model.costs(size)) for budget in plan.config.budgets)
    ]


def _is_faster_together(evaluate: StepSeconds, schedule: FilterSchedule) -> bool:
    try:
        return evaluate.step_seconds(schedule, _REPLICAS) < evaluate.step_seconds(schedule, 1)
    except Exception:  # too little memory, or a network of the user's own that fails: its run will tell
        return False
