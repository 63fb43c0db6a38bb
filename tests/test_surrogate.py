import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.schedule import FilterSchedule
from search.surrogate import RatioInterval, Surrogate, best_ratio, recommend, unexplored_probability

NOISE = 0.004
GRID = np.array([(a, b, c) for a in range(2, 41) for b in range(2, 41) for c in range(2, 41)])
COST = GRID[:, 0] + 4 * GRID[:, 0] * GRID[:, 1] + 4 * GRID[:, 1] * GRID[:, 2]
GROWTH = np.log2(GRID[:, 1:] / GRID[:, :-1])
POOL = GRID[(COST > 700) & (COST <= 1000) & (np.abs(GROWTH) <= 2).all(axis=1)]
"""A budget's band: up to 1,000 units of a cost quadratic in the filters, no stage more than four times another's."""


def planted(filters):
    """The error falls as a power of the filters and is least at a growth ratio of 1.3: smooth, one maximum."""
    x = np.log2(filters)
    bend = ((x[:, 1:] - x[:, :-1] - np.log2(1.3)) ** 2).sum(axis=1)
    return 1 - 0.12 * np.exp2(-0.7 * (x.mean(axis=1) - 2)) * (1 + 0.12 * bend)


def runs(seed, schedules=40, seeds=3, noise=NOISE):
    rng = np.random.default_rng(seed)
    filters = np.repeat(rng.choice(POOL, schedules, replace=False), seeds, axis=0)
    return filters, np.clip(planted(filters) + rng.normal(0, noise, len(filters)), 0, 1)


def fit(seed, schedules=40, seeds=3, noise=NOISE):
    filters, accuracy = runs(seed, schedules, seeds, noise)
    return Surrogate.fit(filters, accuracy, seed=0)


def geometric(ratio):
    """The largest geometric schedule within the band's cost."""
    best = None
    for base in np.arange(0.5, 40, 0.05):
        f = np.maximum(1, np.round(base * ratio ** np.arange(3))).astype(int)
        if f[0] + 4 * f[0] * f[1] + 4 * f[1] * f[2] <= 1000:
            best = f
    return best


@pytest.fixture(scope="module")
def surrogate():
    return fit(0)


# ---- what it predicts


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_it_recommends_a_schedule_of_small_regret(seeds):
    best = planted(POOL).max()
    regrets = []
    for seed in range(4):
        first = recommend(fit(seed, seeds=seeds), POOL, 1, [])[0]
        regrets.append(best - planted(np.array([first.filters]))[0])
    assert max(regrets) < 0.005
    assert np.mean(regrets) < 0.0025


def test_it_beats_the_luckiest_run():
    """The whole point of a model: the best of noisy scores is mostly luck."""
    model, lucky = [], []
    for seed in range(8):
        filters, accuracy = runs(seed, schedules=30, seeds=1, noise=0.01)
        first = recommend(Surrogate.fit(filters, accuracy, seed=0), POOL, 1, [])[0]
        model.append(planted(np.array([first.filters]))[0])
        lucky.append(planted(filters[[accuracy.argmax()]])[0])
    assert np.mean(model) > np.mean(lucky)


@pytest.mark.parametrize("seeds", [1, 3])
def test_its_sd_is_roughly_its_error(seeds):
    errors = []
    for seed in range(6):
        mean, sd = fit(seed, seeds=seeds).predict(POOL)
        errors.append((planted(POOL) - mean) / sd)
    assert 0.4 < np.sqrt(np.mean(np.square(errors))) < 1.6


def test_it_predicts_the_mean_without_the_noise_of_a_run(surrogate):
    filters, _ = runs(0)
    _, sd = surrogate.predict(filters)
    assert sd.max() < NOISE


def test_predictions_stay_within_the_unit_interval():
    filters, _ = runs(0)
    accuracy = np.where(np.arange(len(filters)) % 2, 1.0, 0.995)
    fitted = Surrogate.fit(filters, accuracy, seed=0)
    mean, _ = fitted.predict(GRID[::50])
    drawn = fitted.draws(GRID[::500], 50, np.random.default_rng(0))
    assert (mean > 0).all()
    assert (mean < 1).all()
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()


def test_equal_scores_everywhere_predict_that_score():
    filters, _ = runs(0)
    mean, sd = Surrogate.fit(filters, np.full(len(filters), 0.7), seed=0).predict(POOL[:10])
    assert mean == pytest.approx(0.7)
    assert sd == pytest.approx(0, abs=1e-3)


def test_draws_agree_with_predictions(surrogate):
    some = POOL[::40]
    mean, sd = surrogate.predict(some)
    drawn = surrogate.draws(some, 4000, np.random.default_rng(0))
    assert drawn.shape == (4000, len(some))
    assert np.abs(drawn.mean(axis=0) - mean).max() < 5 * sd.max() / np.sqrt(4000)
    assert drawn.std(axis=0) == pytest.approx(sd, rel=0.1)


def test_draws_are_joint(surrogate):
    """Neighbours rise and fall together; a schedule given twice is drawn as one."""
    twice = np.array([[8, 8, 8], [8, 8, 8], [8, 8, 9]])
    drawn = surrogate.draws(twice, 2000, np.random.default_rng(0))
    assert np.abs(drawn[:, 0] - drawn[:, 1]).max() < 1e-5
    assert np.corrcoef(drawn.T)[0, 2] > 0.8


def test_a_few_repeats_do_not_pass_for_the_noise_of_all():
    """One unlucky pair of runs must not drown what forty schedules say."""
    filters, accuracy = runs(0, seeds=1)
    fitted = Surrogate.fit(np.vstack([filters, filters[:1]]), np.append(accuracy, accuracy[0] - 0.06), seed=0)
    assert np.corrcoef(fitted.predict(POOL)[0], planted(POOL))[0, 1] > 0.9


# ---- laws


def test_the_order_of_runs_does_not_matter():
    filters, accuracy = runs(0)
    order = np.random.default_rng(1).permutation(len(filters))
    shuffled = Surrogate.fit(filters[order], accuracy[order], seed=0)
    np.testing.assert_array_equal(shuffled.predict(POOL[:100]), fit(0).predict(POOL[:100]))


def test_what_was_asked_before_changes_a_prediction_by_rounding_only():
    asked, fresh = fit(0), fit(0)
    asked.predict(POOL[50:80])
    np.testing.assert_allclose(asked.predict(POOL[:100]), fresh.predict(POOL[:100]), rtol=1e-9)
    np.testing.assert_array_equal(asked.predict(POOL[:100]), asked.predict(POOL[:100]))
    assert asked.predict(POOL[:0])[0].shape == (0,)


def test_the_global_seed_does_not_matter():
    before = fit(0)
    np.random.seed(3)  # noqa: NPY002 # the global seed is what must not matter
    again = fit(0)
    np.testing.assert_array_equal(again.predict(POOL[:100]), before.predict(POOL[:100]))
    first, second = (again.draws(POOL[:5], 3, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_predictions_do_not_depend_on_their_company(surrogate):
    alone = [surrogate.predict(row[None])[0][0] for row in GRID[:5000:1000]]
    assert surrogate.predict(GRID[:5000])[0][::1000] == pytest.approx(alone)
    assert surrogate.predict(GRID[:0])[0].shape == (0,)


def test_many_runs_are_fitted_in_seconds_and_silence():
    rng = np.random.default_rng(0)
    filters = rng.choice(GRID[(np.abs(GROWTH) <= 2).all(axis=1)], 2100, replace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = Surrogate.fit(filters, np.clip(planted(filters) + rng.normal(0, NOISE, 2100), 0, 1), seed=0)
    assert np.abs(fitted.predict(POOL)[0] - planted(POOL)).mean() < 0.002


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 30), st.sampled_from([0, 0.01, 0.5]))
def test_any_runs_can_be_fitted(seed, stages, more, noise):
    rng = np.random.default_rng(seed)
    filters = np.unique(rng.integers(1, 2**30, (stages + 2 + more, stages)), axis=0)
    accuracy = np.clip(0.8 + rng.normal(0, noise, len(filters)), 0, 1)
    mean, sd = Surrogate.fit(filters, accuracy, seed=0).predict(filters)
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()


# ---- what is read off it


def test_recommendations_differ_from_each_other_and_from_those_taken(surrogate):
    taken = recommend(surrogate, POOL, 2, [])
    more = recommend(surrogate, POOL, 4, taken)
    everyone = np.log2([schedule.filters for schedule in taken + more])
    apart = np.sqrt(((everyone[:, None] - everyone) ** 2).mean(axis=2))
    assert len(everyone) == 6
    assert apart[~np.eye(6, dtype=bool)].min() >= 0.2
    assert recommend(surrogate, POOL, 6, []) == taken + more


def test_recommendations_do_not_depend_on_the_pools_order(surrogate):
    assert recommend(surrogate, POOL[::-1], 3, []) == recommend(surrogate, POOL, 3, [])


def test_a_pool_that_is_used_up_gives_fewer(surrogate):
    pool = np.array([[8, 8, 8], [8, 8, 9], [4, 8, 16]])
    assert len(recommend(surrogate, pool, 4, [])) == 2
    assert recommend(surrogate, pool[:2], 4, [FilterSchedule((8, 8, 8))]) == []
    assert recommend(surrogate, pool[:0], 4, []) == []


def test_something_better_is_likely_where_the_rule_is_bad_and_not_where_it_is_best(surrogate):
    order = planted(POOL).argsort()
    bad, best = (FilterSchedule(tuple(map(int, POOL[i]))) for i in (order[0], order[-1]))
    rng = np.random.default_rng(0)
    assert unexplored_probability(surrogate, POOL, bad, 0.005, rng, draws=300) > 0.99
    assert unexplored_probability(surrogate, POOL, best, 0.005, rng, draws=300) < 0.3
    assert unexplored_probability(surrogate, POOL, best, 0.5, rng, draws=300) == 0
    assert unexplored_probability(surrogate, POOL[:0], best, 0.005, rng) == 0


def test_a_wide_margin_makes_something_better_less_likely(surrogate):
    rule = FilterSchedule((6, 10, 17))
    chances = [
        unexplored_probability(surrogate, POOL[::3], rule, margin, np.random.default_rng(0), draws=300)
        for margin in (0.0, 0.002, 0.004, 0.01)
    ]
    assert chances == sorted(chances, reverse=True)


def test_screening_a_large_pool_loses_little(surrogate, monkeypatch):
    rule = FilterSchedule((6, 10, 17))
    rng = np.random.default_rng(0)
    whole = unexplored_probability(surrogate, POOL[::2], rule, 0.005, rng, draws=1000)
    monkeypatch.setattr("search.surrogate._SCREENED", 150)
    cut = unexplored_probability(surrogate, POOL[::2], rule, 0.005, rng, draws=1000)
    assert 0.02 < whole < 0.98
    assert cut == pytest.approx(whole, abs=0.08)


def test_best_ratio_finds_the_planted_one(surrogate):
    ratios = np.array([0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0])
    schedules = np.array([geometric(ratio) for ratio in ratios])
    truth = ratios[planted(schedules).argmax()]
    found = best_ratio(surrogate, ratios, schedules, np.random.default_rng(0))
    assert found.low <= found.ratio <= found.high
    assert found.low <= truth <= found.high
    assert found.low >= 0.7
    assert found.high <= 2.0


def test_ratios_that_round_to_one_schedule_are_not_told_apart(surrogate):
    same = np.array([[7, 9, 13]] * 3)
    found = best_ratio(surrogate, np.array([1.5, 1.3, 1.4]), same, np.random.default_rng(0))
    assert found == RatioInterval(1.4, 1.3, 1.5)


# ---- refusals


def test_runs_that_cannot_be_fitted_are_refused(surrogate):
    filters, accuracy = runs(0)
    with pytest.raises(ValueError, match="4 distinct schedules came; a surrogate over 3 stages needs at least 5"):
        Surrogate.fit(filters[:12], accuracy[:12], seed=0)
    with pytest.raises(ValueError, match="one row and one score per run"):
        Surrogate.fit(filters, accuracy[1:], seed=0)
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        Surrogate.fit(filters, accuracy * 100, seed=0)
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        Surrogate.fit(filters, np.full(len(filters), np.nan), seed=0)
    with pytest.raises(ValueError, match="filters must be at least 1"):
        Surrogate.fit(filters * 0, accuracy, seed=0)
    with pytest.raises(ValueError, match="2 ratios and 1 schedules"):
        best_ratio(surrogate, np.ones(2), filters[:1], np.random.default_rng(0))
