import numpy as np
import pytest

from search.looks import Plan, replay
from search.outlook import chance_per_run, chance_to_decide, moments, runs_to_decide

MARGIN = 0.005
PLAN = Plan((16, 32, 64, 128), 0.95, 2)
SD = 0.007


def looked(means, sd=0.004, runs=16, plan=PLAN):
    """The moments of one confirmation whose sample means and sds are exactly these: the rule first."""
    pattern = np.where(np.arange(runs) % 2, 1.0, -1.0)
    scores = np.array(means)[:, None] + sd * pattern / pattern.std(ddof=1)
    stand = replay(scores[0], scores[1:], MARGIN, plan)
    return moments(scores[0], scores[1:], ~stand.settled, stand.reached)


@pytest.mark.parametrize(
    "means", [(0.9, 0.9), (0.9, 0.907), (0.9, 0.903, 0.903), (0.9, 0.909, 0.902), (0.9, 0.9, 0.8)]
)
@pytest.mark.parametrize("runs", [32, 128])
def test_the_chance_is_how_often_it_decides(means, runs):
    """True means are drawn from what 16 runs leave open, and the confirmations carried on to a look at `runs`."""
    rng = np.random.default_rng(0)
    found, tail, repeats = looked(means, SD), 0.0125, 4000
    chance = float(chance_to_decide(found, MARGIN, tail / 2, tail, np.array(float(runs))))
    truth = rng.normal(means, SD / 4, (repeats, len(means)))
    later = rng.normal(truth, SD / np.sqrt(runs - 16))
    final = (16 * np.array(means) + (runs - 16) * later) / runs
    # At the look the variances are those reckoned with, so that nothing but the means is left to chance.
    pattern = np.where(np.arange(runs) % 2, 1.0, -1.0)
    scores = final[..., None] + SD * pattern / pattern.std(ddof=1)
    unsettled = [i for i in range(1, len(means)) if found.unsettled[i - 1]]
    stand = replay(scores[:, 0], scores[:, unsettled], MARGIN, Plan((runs,), 1 - 2 * tail, 2))
    frequency = 1 - stand.undecided.mean()
    assert frequency == pytest.approx(chance, abs=4 * np.sqrt(0.25 / repeats))
    assert 0.01 < chance < 1


def test_the_runs_named_are_the_fewest_that_are_likely_to_decide():
    found, tail = looked((0.9, 0.903, 0.903), sd=0.01), PLAN.tails()[-1]
    runs = runs_to_decide(found, MARGIN, PLAN)
    assert runs > 128
    chances = (
        chance_to_decide(found, MARGIN, tail / 2, tail, runs),
        chance_to_decide(found, MARGIN, tail / 2, tail, runs - 1),
    )
    assert chances[0] >= 0.8 > chances[1]


def test_a_planned_look_is_named_where_one_will_do():
    assert runs_to_decide(looked((0.9, 0.9), sd=0.003), MARGIN, PLAN) in PLAN.looks


def test_beyond_a_hundred_times_the_last_look_nothing_is_named():
    plan = Plan((16,), 0.999, 2)
    assert np.isnan(runs_to_decide(looked((0.9, 0.905, 0.905), sd=0.05, plan=plan), MARGIN, plan))


def test_equal_scores_have_no_price():
    found = looked((0.9, 0.9), sd=0.0)
    assert np.isnan(runs_to_decide(found, MARGIN, PLAN))
    assert chance_per_run(found, MARGIN, PLAN) == 0


def test_less_noise_promises_more_for_a_run():
    quiet, loud = (chance_per_run(looked((0.9, 0.901), sd=sd), MARGIN, PLAN) for sd in (0.004, 0.012))
    assert quiet > loud > 0


def test_after_the_last_look_no_run_promises_anything():
    assert chance_per_run(looked((0.9, 0.905), runs=128), MARGIN, PLAN) == 0
