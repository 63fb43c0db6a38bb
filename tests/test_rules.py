import math
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.cost import Budget, Costs, QuadraticCost
from search.rules import Rule, fit, largest_within, round_to_multiple
from search.schedule import FilterSchedule

NAMED = [Rule(name) for name in ("doubling", "uniform", "linear", "reverse", "hump")]
rules = st.one_of(
    st.sampled_from(NAMED),
    st.floats(1 / 16, 16).map(lambda ratio: Rule("geometric", ratio)),
    st.integers(1, 64).map(lambda k: Rule("combinations", float(k))),
)


class PlainDigits:
    """The plain three-stage network on 8x8 images with ten classes, worked out by hand; memory stands for nothing."""

    params = QuadraticCost(10, (9 + 2, 2, 2 + 10), ((0, 9, 0), (0, 0, 9), (0, 0, 0)))
    macs = QuadraticCost(0, (9 * 64, 0, 10), ((0, 9 * 16, 0), (0, 0, 9 * 4), (0, 0, 0)))
    activations = QuadraticCost(0, (64, 16, 4), ((0, 0, 0), (0, 0, 0), (0, 0, 0)))

    def costs(self, schedule):
        f = schedule.filters
        return Costs(self.params(f), self.macs(f), self.activations(f), memory=4 * self.params(f))

    def table(self, filters, cost):
        return getattr(self, cost).table(filters)


class SumOfSquares:
    """A small cost for any number of stages."""

    def costs(self, schedule):
        total = sum(f * f for f in schedule.filters)
        return Costs(params=total, macs=total, activations=sum(schedule.filters), memory=total)


@given(rules)
def test_a_rule_reads_back(rule):
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "shown"),
    [("doubling", "doubling"), ("geometric(2.50)", "geometric(2.5)"), (" hump ", "hump"), ("combinations(5)",) * 2],
)
def test_the_text_form_is_the_shortest(text, shown):
    assert str(Rule.parse(text)) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tripling", "is no rule; write doubling, uniform"),
        ("", "is no rule"),
        ("doubling(2)", "doubling takes no parameter"),
        ("geometric", "needs a ratio from 0.0625 to 16"),
        ("geometric(0)", "needs a ratio"),
        ("geometric(17)", "needs a ratio"),
        ("geometric(1.2.3)", "needs a ratio"),
        ("geometric(-2)", "is no rule"),
        ("combinations(2.5)", "needs a whole k from 1 to 64"),
        ("combinations(0)", "needs a whole k"),
        ("combinations(65)", "needs a whole k"),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Rule.parse(text)


@pytest.mark.parametrize(
    ("text", "base", "schedule"),
    [
        ("doubling", 8, "8-16-32-64"),
        ("uniform", 8, "8-8-8-8"),
        ("geometric(2.5)", 8, "8-20-50-125"),
        ("geometric(1)", 8, "8-8-8-8"),
        ("linear", 8, "8-16-24-32"),
        ("reverse", 8, "64-32-16-8"),
        ("hump", 8, "8-16-16-8"),
        ("combinations(1)", 5, "5-5-5-5"),
        ("combinations(2)", 5, "5-15-15-15"),
        ("combinations(5)", 5, "5-31-31-31"),
        ("combinations(64)", 30, f"30-{'-'.join([str(2**30 - 1)] * 3)}"),
    ],
)
def test_each_rule_is_its_formula(text, base, schedule):
    assert str(Rule.parse(text).schedule(base, stages=4, multiple=1)) == schedule


@given(rules, st.floats(0, 1000), st.floats(0, 1000), st.integers(1, 6), st.sampled_from([1, 3, 8]))
def test_no_stage_shrinks_as_the_base_grows(rule, one, other, stages, multiple):
    low, high = (rule.schedule(base, stages, multiple).filters for base in sorted((one, other)))
    assert all(a <= b for a, b in zip(low, high, strict=True))


@given(rules, st.floats(0, 2.0**41), st.integers(1, 6), st.integers(1, 64))
def test_filters_are_multiples_and_never_none(rule, base, stages, multiple):
    filters = rule.schedule(base, stages, multiple).filters
    assert all(f >= multiple and f % multiple == 0 for f in filters)


@given(st.floats(0, 1e6), st.integers(1, 64))
def test_rounding_goes_to_the_nearest_multiple(width, multiple):
    rounded = round_to_multiple(width, multiple)
    assert rounded == multiple or abs(rounded - width) <= multiple / 2


def test_halves_go_up():
    assert [round_to_multiple(width, 8) for width in (0, 3, 12, 11.9, 20)] == [8, 8, 16, 8, 24]


@pytest.mark.parametrize(
    ("rule", "budget", "schedule"),
    [
        ("doubling", "params <= 1500", "4-7-15"),
        ("uniform", "params <= 1500", "8-8-8"),
        ("doubling", "macs <= 40000", "8-15-31"),
        ("uniform", "macs <= 40000", "13-13-13"),
        ("doubling", "activations <= 500", "4-9-18"),
        ("uniform", "activations <= 500", "5-5-5"),
    ],
)
def test_fits_to_the_digits_budgets(rule, budget, schedule):
    found = fit(Rule.parse(rule), Budget.parse(budget), PlainDigits(), stages=3, multiple=1)
    assert str(found.schedule) == schedule
    assert found.budget_used == PlainDigits().costs(found.schedule)[found.budget.cost] / found.budget.limit


def next_member(rule, schedule, stages, multiple):
    """The rule's smallest member above `schedule`, by walking the base in steps finer than any rounding."""
    base, step = 0.0, 2.0**-9
    while rule.schedule(base, stages, multiple) != schedule:
        base += step
    while rule.schedule(base, stages, multiple) == schedule:
        base += step
    return rule.schedule(base, stages, multiple)


@given(
    st.sampled_from([*NAMED, Rule("geometric", 1.5), Rule("combinations", 3.0)]),
    st.integers(1, 3000),
    st.integers(1, 4),
    st.sampled_from([1, 2, 5]),
)
def test_the_next_member_breaks_the_budget(rule, limit, stages, multiple):
    budget, model = Budget("params", limit), SumOfSquares()
    found = fit(rule, budget, model, stages, multiple)
    if found is None:
        assert not budget.admits(model.costs(rule.schedule(0, stages, multiple)))
        return
    assert 0 < found.budget_used <= 1
    assert budget.admits(model.costs(found.schedule))
    assert not budget.admits(model.costs(next_member(rule, found.schedule, stages, multiple)))


def test_a_smaller_member_would_be_caught():
    rule, budget = Rule("doubling"), Budget("params", 1500)
    assert budget.admits(PlainDigits().costs(next_member(rule, FilterSchedule((4, 7, 14)), 3, 1)))


@given(rules, st.lists(st.integers(1, 10**12), min_size=2, max_size=5), st.integers(1, 5))
def test_a_larger_budget_never_gets_a_smaller_member(rule, limits, stages):
    fits = [fit(rule, Budget("macs", limit), SumOfSquares(), stages, 1) for limit in sorted(limits)]
    for low, high in pairwise(found.schedule.filters if found else (0,) * stages for found in fits):
        assert all(a <= b for a, b in zip(low, high, strict=True))


def test_a_budget_nothing_meets_has_no_member():
    smallest = PlainDigits().costs(FilterSchedule((1, 1, 1))).params
    assert fit(Rule("uniform"), Budget("params", smallest), PlainDigits(), stages=3, multiple=1) is not None
    assert fit(Rule("uniform"), Budget("params", smallest - 1), PlainDigits(), stages=3, multiple=1) is None


def test_combinations_of_thirty_features_are_priced_at_once():
    start = time.perf_counter()
    found = fit(Rule("combinations", 64.0), Budget("params", 12 * 2**60), PlainDigits(), stages=3, multiple=1)
    assert found.schedule.filters == (30, 2**30 - 1, 2**30 - 1)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("rule", [*NAMED, Rule("geometric", 16.0), Rule("combinations", 64.0)])
def test_no_budget_is_too_large(rule):
    found = fit(rule, Budget("params", 10**30), PlainDigits(), stages=3, multiple=8)
    assert found.budget_used <= 1


def test_any_growing_family_can_be_fitted():
    def member(base):
        return FilterSchedule((1 + math.floor(base), 1))

    assert largest_within(member, Budget("params", 101), SumOfSquares()) == FilterSchedule((10, 1))
    assert largest_within(member, Budget("params", 1), SumOfSquares()) is None


def test_a_literal_schedule_is_its_own_only_member():
    rule = Rule.parse("schedule(5-4-3)")
    assert str(rule) == "schedule(5-4-3)"
    assert Rule.parse(str(rule)) == rule
    schedule = FilterSchedule((5, 4, 3))
    assert {rule.schedule(base, 3, 8) for base in (0.0, 1.0, 1e9)} == {schedule}
    assert fit(rule, Budget("params", 51), SumOfSquares(), 3, 1).budget_used == 50 / 51
    assert fit(rule, Budget("params", 49), SumOfSquares(), 3, 1) is None
    for text in ("schedule", "schedule()", "schedule(5-)", "schedule(0-1)"):
        with pytest.raises(ValueError, match="is no rule"):
            Rule.parse(text)
