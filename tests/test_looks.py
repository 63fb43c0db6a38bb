import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.looks import Plan, replay, variance_floor
from search.verdict import decide

MARGIN = 0.005
PLAN = Plan((4, 8, 16), 0.9, 3)


@st.composite
def confirmations(draw):
    """Scores of a batch, `(2, 3, n)` and `(2, 3, K, n)`, each arm missing its last few."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, runs = draw(st.integers(1, 3)), draw(st.integers(0, 20))
    spread = draw(st.sampled_from([0, 0.0005, 0.004, 0.02]))
    means = 0.6 + rng.choice([-0.02, 0, 0.005, 0.02], (2, 3, count + 1, 1))
    scores = rng.normal(means, spread, (2, 3, count + 1, runs))
    if draw(st.booleans()):
        scores = np.round(scores * 540) / 540
    missing = rng.choice([0, 0, 1, 9], (2, 3, count + 1, 1))
    scores[np.arange(runs) >= runs - missing] = np.nan
    return scores[:, :, 0], scores[:, :, 1:]


@given(confirmations())
def test_a_batch_is_judged_as_each_alone(sample):
    rule, others = sample
    stand = replay(rule, others, MARGIN, PLAN)
    for at in np.ndindex(2, 3):
        seen = [scores[np.isfinite(scores)] for scores in others[at]]
        verdict = decide(rule[at][np.isfinite(rule[at])], dict(zip("abc", seen, strict=False)), MARGIN, PLAN)
        outcomes = {
            "near-optimal": stand.near_optimal[at],
            "not near-optimal": stand.not_near_optimal[at],
            "undecided": stand.undecided[at],
        }
        assert [name for name, holds in outcomes.items() if holds] == [verdict.outcome]
        assert stand.reached[at] == verdict.runs
        for k, comparison in enumerate(verdict.comparisons.values()):
            columns = (stand.mean, stand.low, stand.high, stand.runs, stand.settled)
            assert [column[(*at, k)] for column in columns] == pytest.approx(
                list(vars(comparison).values()), abs=1e-12
            )


def test_the_floor_is_half_the_smallest_gap():
    assert variance_floor(np.array([0.5, 0.7]), np.array([0.5, 0.56])) == pytest.approx(0.03**2)
    assert np.isnan(variance_floor(np.full(3, 0.5), np.full(3, 0.5)))
