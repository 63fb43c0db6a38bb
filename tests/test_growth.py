"""How accuracy depends on the growth ratio: predicted and confirmed."""

from dataclasses import replace

import numpy as np
import pytest
from planted import peaked

from search.cases import Case, Challenger
from search.growth import best_ratios, confirmed, doubling, growth_ratio, predicted, ratio_members
from search.records import verdict_values
from search.rules import Rule
from search.schedule import FilterSchedule
from search.surrogate import Surrogate


@pytest.fixture(scope="module")
def surrogate():
    """Fitted to 60 schedules of a planted truth, best at ratio 1, with little noise."""
    rng, truth = np.random.default_rng(0), peaked(1, 0.02)
    filters = rng.integers(2, 40, (60, 3))
    accuracy = [truth(FilterSchedule(tuple(map(int, row)))) for row in filters]
    return Surrogate.fit(filters, np.array(accuracy) + 0.001 * rng.standard_normal(60), 0)


@pytest.fixture(scope="module")
def case(plan):
    """Doubling under 1,500 parameters against a rule that grows evenly, one that does not, and a model's picks."""
    budget = plan.config.budgets[0]
    ratios, filters = ratio_members(plan, budget)
    even = FilterSchedule(tuple(map(int, filters[ratios == 2**0.5][0])))
    others = [("8-8-8", "uniform"), ("6-11-6", "hump"), (str(even), "surrogate"), ("9-2-9", "surrogate")]
    challengers = tuple(Challenger(FilterSchedule.parse(schedule), origin) for schedule, origin in others)
    return Case(budget, Rule("doubling"), doubling(plan, budget), challengers)


@pytest.fixture(scope="module")
def found(case):
    rng, truth = np.random.default_rng(1), peaked(1, 0.02)
    schedules = [case.schedule, *(each.schedule for each in case.challengers)]
    return {schedule: truth(schedule) + 0.002 * rng.standard_normal(32) for schedule in schedules}


def test_the_curve_falls_off_on_both_sides_of_the_planted_ratio_and_is_about_right(plan, surrogate, case, found):
    truth = peaked(1, 0.02)
    for best in best_ratios(plan, surrogate, [case], found, np.random.default_rng(2)):
        at = {each.ratio: each for each in best.curve}
        assert at[1.0].accuracy > at[2.0].accuracy > max(at.items())[1].accuracy
        assert at[1.0].accuracy > at[2**-0.5].accuracy > min(at.items())[1].accuracy
        for each in (at[0.5], at[1.0], at[2.0**0.5]):
            true = truth(each.schedule) - truth(doubling(plan, best.budget))
            assert each.gain.low - 0.002 < true < each.gain.high + 0.002
            assert abs(each.accuracy - truth(each.schedule)) < 3 * each.sd + 0.002


def test_doubling_gains_nothing_over_itself(plan, surrogate, case, found):
    best = best_ratios(plan, surrogate, [case], found, np.random.default_rng(2))[0]
    for each in (*best.curve, *best.confirmed):
        if each.schedule == case.schedule:
            assert (each.gain.mean, each.gain.low, each.gain.high) == (0, 0, 0)
    assert {2.0} <= {each.ratio for each in best.confirmed} & {each.ratio for each in best.curve}


def test_errors_shared_with_doubling_cancel_in_the_limits_of_a_gain(plan, surrogate):
    budget = plan.config.budgets[0]
    ratios, filters = ratio_members(plan, budget)
    near = predicted(surrogate, ratios, filters, doubling(plan, budget), np.random.default_rng(0))
    by_ratio = {each.ratio: each for each in near}
    neighbour = by_ratio[2 ** (1 + 1 / 8)]
    assert neighbour.schedule != by_ratio[2.0].schedule
    alone = 2 * 1.96 * np.hypot(neighbour.sd, by_ratio[2.0].sd)
    assert neighbour.gain.high - neighbour.gain.low < alone


def test_without_a_doubling_there_are_no_gains(plan, surrogate):
    ratios, filters = ratio_members(plan, plan.config.budgets[0])
    assert all(each.gain is None for each in predicted(surrogate, ratios, filters, None, np.random.default_rng(0)))


def test_only_what_grows_evenly_is_confirmed_at_a_ratio(plan, case, found):
    shown = confirmed(plan, [case], found, *ratio_members(plan, case.budget))
    assert [str(each.schedule) for each in shown if each.ratio in (1, 2)] == ["8-8-8", str(case.schedule)]
    assert len(shown) == 3
    assert 1 < shown[1].ratio < 2
    truth = peaked(1, 0.02)
    for each in shown:
        assert each.runs == 32
        assert each.accuracy.mean == found[each.schedule].mean()
        true = truth(each.schedule) - truth(case.schedule)
        assert each.gain.low - 1e-3 < true < each.gain.high + 1e-3


def test_ratios_are_confirmed_without_doubling_but_gain_nothing_over_it(plan, case, found):
    fewer = {schedule: runs for schedule, runs in found.items() if schedule != case.schedule}
    shown = confirmed(plan, [case], fewer, *ratio_members(plan, case.budget))
    assert len(shown) == 2
    assert all(each.gain is None for each in shown)
    one_run = {schedule: runs[:1] for schedule, runs in found.items()}
    assert confirmed(plan, [case], one_run, *ratio_members(plan, case.budget)) == ()


@pytest.mark.parametrize(
    ("origin", "schedule", "ratio"),
    [
        ("uniform", "8-8-8", 1.0),
        ("doubling", "4-7-15", 2.0),
        ("reverse", "15-7-4", 0.5),
        ("geometric(2.5)", "3-7-16", 2.5),
        ("surrogate", "9-2-9", None),
        ("linear", "9-2-9", None),
    ],
)
def test_growth_ratio_of_a_rule_is_its_own(plan, origin, schedule, ratio):
    assert growth_ratio(origin, FilterSchedule.parse(schedule), *ratio_members(plan, plan.config.budgets[0])) == ratio


def test_within_stops_at_the_first_ratio_that_loses_more(findings):
    best = findings.rule_of_thumb[0]
    low, high = best.within(0.005)  # a point per squared octave around 1.19
    assert np.log2(low / 1.19) == pytest.approx(-(0.5**0.5), abs=1 / 8)
    assert np.log2(high / 1.19) == pytest.approx(0.5**0.5, abs=1 / 8)
    dented = [replace(each, accuracy=0.5) if each.ratio == 1.0 else each for each in best.curve]
    assert replace(best, curve=tuple(dented)).within(0.005)[0] > 1
    assert replace(best, curve=()).within(0.005) is None


def test_the_verdict_file_has_curve_and_confirmed_ratios(findings):
    thumb = verdict_values(findings)["rule_of_thumb"][0]
    assert set(thumb) == {"cost", "limit", "ratio", "low", "high", "curve", "confirmed"}
    assert set(thumb["curve"][0]) == {"ratio", "schedule", "accuracy", "sd", "over_doubling"}
    (only,) = thumb["confirmed"]
    assert only == {
        "ratio": 1.0,
        "schedule": "8-8-8",
        "mean": 0.98,
        "low": 0.979,
        "high": 0.981,
        "runs": 16,
        "over_doubling": {"mean": 0.02, "low": 0.018, "high": 0.022},
    }
