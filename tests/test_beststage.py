import numpy as np
import pytest

from search.beststage import best_filters
from search.surrogate import Surrogate

GRID = np.array([(a, b) for a in range(1, 17) for b in range(1, 65)], np.int64)


def surrogate_of(drop, noise=0.005, seeds=4, seed=0):
    """Fitted to noisy runs of a surface that peaks at 6-24 and falls by `drop` per squared octave in each stage."""
    rng = np.random.default_rng(seed)
    tried = np.repeat(GRID[rng.choice(len(GRID), 40, replace=False)], seeds, axis=0)
    off = np.log2(tried / np.array([6, 24]))
    truth = 0.9 - (off**2) @ np.array(drop)
    return Surrogate.fit(tried, np.clip(truth + noise * rng.standard_normal(len(tried)), 0.01, 0.99), seed)


def test_the_interval_holds_a_planted_peak():
    first, second = best_filters(surrogate_of((0.02, 0.02)), GRID, np.random.default_rng(0))
    assert first.low <= 6 <= first.high
    assert second.low <= 24 <= second.high
    assert first.high <= 9
    assert 15 <= second.low <= second.best <= second.high <= 38


def test_a_stage_that_does_not_matter_has_a_wide_interval():
    _, second = best_filters(surrogate_of((0.02, 0.0)), GRID, np.random.default_rng(0))
    assert second.high > 3 * second.low


def test_only_schedules_offered_can_win():
    within = GRID[GRID.prod(axis=1) <= 48]
    first, second = best_filters(surrogate_of((0.02, 0.02)), within, np.random.default_rng(0))
    assert first.best * second.best <= 48
    (alone, other) = best_filters(surrogate_of((0.02, 0.02)), within[:1], np.random.default_rng(0))
    assert (alone.low, alone.high, other.low, other.high) == (1, 1, 1, 1)


def test_equal_generators_give_equal_intervals_whatever_the_order():
    surrogate = surrogate_of((0.02, 0.02))
    found = [best_filters(surrogate, grid, np.random.default_rng(3)) for grid in (GRID, GRID[::-1])]
    assert found[0] == found[1]


def test_no_schedule_is_refused():
    with pytest.raises(ValueError, match="at least one must lie within the budget"):
        best_filters(surrogate_of((0.02, 0.02)), GRID[:0], np.random.default_rng(0))
