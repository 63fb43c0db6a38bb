"""How many filters each stage of the best schedule has, and how many it may have.

Owns the step from a surrogate to an interval of filters, asked for by hypotheses about single stages: has the second
stage 2^k-1 filters? Pure numpy; knows nothing of budgets, which the caller's schedules obey.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.surrogate import Surrogate

_DRAWS = 4000
_MOST_SCHEDULES = 1000  # draws cost the cube of it


@dataclass(frozen=True)
class FiltersInterval:
    """Filters of one stage.

    Attributes:
        best: Of the schedule with the highest predicted accuracy.
        low: Lower limit.
        high: Upper limit.
    """

    best: int
    low: int
    high: int


def best_filters(
    surrogate: Surrogate, schedules: NDArray[np.int64], rng: np.random.Generator, confidence: float = 0.95
) -> tuple[FiltersInterval, ...]:
    """For each stage, the filters of the best schedule and the limits within which they lie.

    Limits are quantiles of the winner's filters over joint posterior draws, each stage by itself: low limits of two
    stages need not belong to one schedule. Only the thousand schedules of the highest predicted accuracy take part.

    Assumes the surrogate and gives credible, not confidence, intervals. They mislead where accuracy hardly depends on
    the stage (then they are wide, rightly), where limits reach the ends of the space, and where the schedules offered
    are all small: more filters fit a larger budget, so what is best says little of what would suffice.

    Args:
        surrogate: Its joint posterior is drawn from.
        schedules: Those that compete, shape `(m, n_stages)`; such as all within a budget.
        rng: Draws.
        confidence: Of the limits.

    Raises:
        ValueError: No schedule.
    """
    if not len(schedules):
        msg = "no schedule came to choose the best from; at least one must lie within the budget"
        raise ValueError(msg)
    mean, _ = surrogate.predict(schedules)
    pool = schedules[np.argsort(-mean, kind="stable")[:_MOST_SCHEDULES]]
    winners = pool[surrogate.draws(pool, _DRAWS, rng).argmax(axis=1)]
    tail = (1 - confidence) / 2
    low, high = (np.quantile(winners, q, axis=0, method="inverted_cdf") for q in (tail, 1 - tail))
    return tuple(
        FiltersInterval(best, min(least, best), max(most, best))
        for best, least, most in zip(*(each.astype(int).tolist() for each in (pool[0], low, high)), strict=True)
    )
