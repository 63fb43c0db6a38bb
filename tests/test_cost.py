import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.cost import COST_NAMES, LARGEST_LIMIT, Budget, Costs, QuadraticCost, amount

names = st.sampled_from(COST_NAMES)


@given(names, st.integers(1, LARGEST_LIMIT))
def test_a_budget_reads_back(cost, limit):
    budget = Budget(cost, limit)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("params <= 1500", 1500),
        ("params<=1_500", 1500),
        ("params <= 1,500,000", 1_500_000),
        ("macs <= 40k", 40_000),
        ("macs <= 1.5M", 1_500_000),
        ("macs <= 0.3 G", 300_000_000),
        ("memory <= 2 MiB", 2**21),
        ("memory <= 100 B", 100),
        ("memory <= 50 GB", 50 * 10**9),
        ("  activations  <=  7 ", 7),
        ("params <= 9007199254740993", 2**53 + 1),  # a float would lose the last digit
    ],
)
def test_limits_have_units(text, limit):
    assert Budget.parse(text).limit == limit


@pytest.mark.parametrize(
    "text",
    [
        "params 1500",
        "params < 1500",
        "flops <= 1500",
        "params <= ",
        "params <= 1,5k",
        "params <= 2 MiB",
        "memory <= 2 TB",
        "params <= 2 MB",
        "params <= 1e6",
        "params <= ٣",
        "params <= 1500 1500",
        "params <= " + "9" * 31,
    ],
)
def test_other_text_is_no_budget(text):
    with pytest.raises(ValueError, match="is no budget; write COST <= LIMIT"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["params <= 0", "params <= -5", "macs <= 0.4", "memory <= -2 MiB"])
def test_a_budget_allows_something(text):
    with pytest.raises(ValueError, match="allows nothing; a budget's limit is at least 1"):
        Budget.parse(text)


SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@given(st.integers(1, 2**62) | st.integers(0, 62).map(lambda n: 2**n))
def test_memory_is_near_what_is_said(value):
    number, unit = amount("memory", value).split()
    assert float(number.replace(",", "")) * SIZES[unit] == pytest.approx(value, rel=0.005)


@given(names, st.integers(1, LARGEST_LIMIT))
def test_a_budget_in_words_loses_nothing(cost, limit):
    words = Budget(cost, limit).in_words
    said, _, inside = words.partition(" (")
    assert Budget.parse(said) == Budget(cost, limit) or inside == f"{limit:,} bytes)"


def test_a_budget_in_words():
    said = {"1 MiB": "memory <= 1.0 MiB", "1100000": "memory <= 1.05 MiB (1,100,000 bytes)", "900": "memory <= 900 B"}
    said["1048577"] = "memory <= 1.0 MiB (1,048,577 bytes)"
    assert {given: Budget.parse(f"memory <= {given}").in_words for given in said} == said
    assert Budget.parse("params <= 40k").in_words == "params <= 40000"


def test_a_budget_names_a_folder():
    assert Budget("params", 1500).folder == "params-1500"


@pytest.mark.parametrize("name", COST_NAMES)
def test_a_budget_admits_up_to_its_limit_of_its_own_cost(name):
    costs = Costs(params=10, macs=20, activations=30, memory=40)
    assert costs[name] == getattr(costs, name)
    assert Budget(name, costs[name]).admits(costs)
    assert not Budget(name, costs[name] - 1).admits(costs)


# By hand: one-channel images, three stages of a 3x3 convolution without bias and batch norm, linear head, ten classes.
DIGITS_PARAMS = QuadraticCost(constant=10, linear=(11, 2, 12), quadratic=((0, 9, 0), (0, 0, 9), (0, 0, 0)))


def test_a_quadratic_cost_is_the_formula():
    assert DIGITS_PARAMS((4, 7, 15)) == 9 * 4 + 2 * 4 + 9 * 4 * 7 + 2 * 7 + 9 * 7 * 15 + 2 * 15 + 10 * 15 + 10 == 1445
    assert DIGITS_PARAMS((8, 8, 8)) == 1362


small = st.integers(0, 1000)


@given(
    small,
    st.tuples(small, small, small),
    st.tuples(*[st.tuples(small, small, small)] * 3),
    st.lists(st.tuples(*[st.integers(1, 2**20)] * 3), max_size=20),
)
def test_a_whole_space_costs_what_its_schedules_cost(constant, linear, quadratic, schedules):
    upper = tuple(tuple(value if j >= i else 0 for j, value in enumerate(row)) for i, row in enumerate(quadratic))
    cost = QuadraticCost(constant, linear, upper)
    table = cost.table(np.array(schedules, dtype=np.int64).reshape(-1, 3))
    assert table.tolist() == [cost(schedule) for schedule in schedules]


@given(st.lists(st.tuples(*[st.integers(1, 2**40)] * 3), min_size=1, max_size=20))
def test_sizes_beyond_64_bits_are_exact_alone_and_beyond_every_budget_in_bulk(schedules):
    found = DIGITS_PARAMS.table(np.array(schedules, dtype=np.int64)).tolist()
    for value, schedule in zip(found, schedules, strict=True):
        exact = DIGITS_PARAMS(schedule)
        assert value == exact or (value > LARGEST_LIMIT and exact > 0.999 * LARGEST_LIMIT)


@pytest.mark.parametrize("stage", [2**30, 2**31, 2**32, 2**40])
def test_a_cost_that_would_wrap_is_beyond_every_budget(stage):
    assert DIGITS_PARAMS((stage,) * 3) == 18 * stage**2 + 25 * stage + 10
    assert DIGITS_PARAMS.table(np.array([[stage] * 3]))[0] > LARGEST_LIMIT


def test_a_limit_nothing_can_reach_is_refused():
    assert Budget.parse(f"params <= {LARGEST_LIMIT}").limit == LARGEST_LIMIT
    with pytest.raises(ValueError, match=r"at most 2\^62"):
        Budget.parse(f"params <= {LARGEST_LIMIT + 1}")
