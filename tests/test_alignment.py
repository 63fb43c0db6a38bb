from dataclasses import replace

import numpy as np
import pytest
from planted_findings import make_plan

from search.alignment import Alignment, alignments
from search.cost import Budget
from search.schedule import FilterSchedule
from search.space import Space
from search.surrogate import Surrogate
from search.verdict import Interval
from search.wording import alignment_sentence


@pytest.fixture(scope="module")
def surrogate():
    """Of a truth that rises with every stage's filters."""
    rng = np.random.default_rng(0)
    filters = rng.integers(2, 65, (60, 3))
    return Surrogate.fit(filters, 0.6 + 0.02 * np.log2(filters).sum(axis=1) + 0.002 * rng.standard_normal(60), 0)


def of(plan, surrogate):
    return {(str(each.budget), each.multiple): each for each in alignments(plan, surrogate, np.random.default_rng(0))}


def test_every_budget_is_asked_for_both_multiples(surrogate):
    plan = make_plan(budgets=("params <= 1500", "macs <= 200000"))
    found = of(plan, surrogate)
    assert [key[1] for key in found] == [8, 16, 8, 16]
    for each in found.values():
        assert each.free in plan.space
        if each.aligned is not None:
            assert all(filters % each.multiple == 0 for filters in each.aligned.filters)
            assert each.used == plan.cost_model.costs(each.aligned)[each.budget.cost] / each.budget.limit <= 1
            assert each.change.low <= each.change.mean <= each.change.high
            assert each.change.mean < 0, "what is best of all is no worse than what is best of some"
    assert found["macs <= 200000", 8].aligned is not None
    assert found["params <= 1500", 16].aligned is None


def test_multiples_that_the_study_has_already_are_not_asked_for(surrogate):
    plan = make_plan(filters={"multiple": 8}, budgets=("macs <= 200000",))
    assert [multiple for _, multiple in of(plan, surrogate)] == [16]
    odd = make_plan(filters={"multiple": 3, "stages": [{"low": 3}] * 3}, budgets=("macs <= 200000",))
    assert not of(odd, surrogate)


def test_ranges_without_a_multiple_leave_nothing(surrogate):
    narrow = make_plan(filters={"stages": [{"low": 2, "high": 7}] * 3}, budgets=("macs <= 200000",))
    assert {each.aligned for each in of(narrow, surrogate).values()} == {None}


FREE, ALIGNED = FilterSchedule((9, 14, 13)), FilterSchedule((8, 16, 8))
FOUND = Alignment(Budget("params", 1500), 8, FREE, ALIGNED, Interval(-0.004, -0.01, 0.002), 0.93)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            FOUND,
            "Within 1,500 parameters, the best in multiples of 8 is 8-16-8, which uses 93 % of it: predicted to lose "
            "0.4 points (95 % limits \N{MINUS SIGN}0.2 to 1 point) against 9-14-13.",
        ),
        (
            replace(FOUND, change=Interval(0.01, -0.001, 0.02)),
            "Within 1,500 parameters, the best in multiples of 8 is 8-16-8, which uses 93 % of it: predicted to gain "
            "1 point (95 % limits \N{MINUS SIGN}0.1 to 2 points) against 9-14-13.",
        ),
        (
            replace(FOUND, free=ALIGNED),
            "Within 1,500 parameters, the model's best, 8-16-8, has its filters in multiples of 8 already.",
        ),
        (
            Alignment(Budget("params", 1500), 16, FREE),
            "Within 1,500 parameters, no schedule has all its filters in multiples of 16.",
        ),
    ],
)
def test_the_sentence_says_what_would_change(found, said):
    assert alignment_sentence(found) == said


def test_the_same_random_choices_give_the_same_answer(surrogate):
    plan = replace(make_plan(budgets=("macs <= 200000",)), space=Space.of(make_plan().config.filters))
    assert of(plan, surrogate) == of(plan, surrogate)
