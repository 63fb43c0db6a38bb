"""What it would change to take filters in multiples of 8 or 16, which matrix units compute fastest.

Owns the comparison within each budget, by the surrogate. Knows nothing of speed: how much faster aligned filters are
depends on the machine, and is measured nowhere here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.cost import Budget
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.space import Range, Space
from search.surrogate import Surrogate
from search.verdict import Interval

MULTIPLES = (8, 16)
_DRAWS = 4000


@dataclass(frozen=True)
class Alignment:
    """The best schedule within a budget, and the best one whose filters come in a larger multiple.

    Attributes:
        budget: The budget.
        multiple: Of the aligned schedule's filters.
        free: The schedule the surrogate expects most of, as the study's space has them.
        aligned: Likewise among those in multiples; None where none lies within budget and ranges.
        change: Predicted validation accuracy of the aligned schedule minus the free one's, with 95 % limits.
        used: The aligned schedule's cost as a share of the budget.
    """

    budget: Budget
    multiple: int
    free: FilterSchedule
    aligned: FilterSchedule | None = None
    change: Interval | None = None
    used: float | None = None


def alignments(plan: StudyPlan, surrogate: Surrogate, rng: np.random.Generator) -> Iterator[Alignment]:
    """Every budget with every multiple that the study's own filters are not multiples of already.

    Assumes the surrogate; it has seen validation scores only, and neither schedule need have been trained.

    Args:
        plan: The study.
        surrogate: Of the search's runs.
        rng: Samples large spaces and draws the limits.
    """
    own = plan.space.multiple
    wanted = [multiple for multiple in MULTIPLES if multiple > own and multiple % own == 0]
    for budget in plan.config.budgets if wanted else ():
        free = _best(surrogate, plan.space.within(budget, plan.cost_model, rng))
        seed = int(rng.integers(2**63))  # of the draws, so that one schedule for two multiples has one number
        for multiple in wanted:
            found = Alignment(budget, multiple, _schedule(free))
            space = _in_multiples(plan.space, multiple)
            pool = space.within(budget, plan.cost_model, rng) if space else np.empty((0, len(free)), np.int64)
            if len(pool):
                aligned = _best(surrogate, pool)
                used = int(plan.cost_model.table(aligned[None], budget.cost)[0]) / budget.limit
                change = _difference(surrogate, free, aligned, np.random.default_rng(seed))
                found = replace(found, aligned=_schedule(aligned), change=change, used=used)
            yield found


def _in_multiples(space: Space, multiple: int) -> Space | None:
    """The same ranges in another multiple; None where some stage has none."""
    ranges = tuple(
        Range(math.ceil(each.low * space.multiple / multiple), each.high * space.multiple // multiple, each.scale)
        for each in space.ranges
    )
    return Space(ranges, multiple) if all(each.low <= each.high for each in ranges) else None


def _best(surrogate: Surrogate, pool: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(pool[int(np.argmax(surrogate.predict(pool)[0]))])


def _schedule(filters: NDArray[np.int64]) -> FilterSchedule:
    return FilterSchedule(tuple(map(int, filters)))


def _difference(
    surrogate: Surrogate, free: NDArray[np.int64], aligned: NDArray[np.int64], rng: np.random.Generator
) -> Interval:
    if (free == aligned).all():
        return Interval(0.0, 0.0, 0.0)
    draws = surrogate.draws(np.stack([free, aligned]), _DRAWS, rng)
    change = draws[:, 1] - draws[:, 0]
    return Interval(float(change.mean()), *(float(limit) for limit in np.quantile(change, (0.025, 0.975))))
