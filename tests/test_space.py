import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import FiltersConfig, StageConfig
from search.cost import LARGEST_LIMIT, Budget, Costs, QuadraticCost
from search.errors import ConfigError
from search.schedule import FilterSchedule
from search.space import Space


class Toy:
    """params = sum of f_i f_(i+1); every other cost the same. Counts what it is asked."""

    def __init__(self, stages: int) -> None:
        self.asked = 0
        quadratic = tuple(tuple(int(j == i + 1) for j in range(stages)) for i in range(stages))
        self._polynomial = QuadraticCost(5, (3,) * stages, quadratic)

    def costs(self, schedule: FilterSchedule) -> Costs:
        self.asked += 1
        value = self._polynomial(schedule.filters)
        return Costs(value, value, value, value)

    def table(self, filters, cost):
        self.asked += 1
        return self._polynomial.table(filters)


def space(*ranges: tuple[int, int], multiple: int = 1, scale: str = "log") -> Space:
    stages = tuple(StageConfig(low=low, high=high, scale=scale) for low, high in ranges)
    return Space.of(FiltersConfig(multiple=multiple, stages=stages))


def test_size_and_ends():
    s = space((2, 9), (4, 16), multiple=4)
    assert (s.size, str(s.smallest), str(s.largest)) == (2 * 4, "4-4", "8-16")
    assert FilterSchedule((4, 12)) in s
    assert FilterSchedule((4, 10)) not in s
    assert FilterSchedule((4, 20)) not in s


def test_second_stage_reaches_all_combinations_of_the_first():
    stages = (StageConfig(low=2, high=6), StageConfig(low=2, high="combinations"))
    s = Space.of(FiltersConfig(stages=stages))
    assert s.largest == FilterSchedule((6, 2**6 - 1))
    assert [r.low for r in s.ranges] == [2, 2]


@given(
    seed=st.integers(0, 2**32 - 1),
    limit=st.integers(60, 10**6),
    multiple=st.sampled_from([1, 2, 8]),
    scale=st.sampled_from(["log", "linear"]),
)
@settings(max_examples=60, deadline=None)
def test_proposals_fit_the_budget_and_lie_in_the_space(seed, limit, multiple, scale):
    s, model = space((1, 64), (1, 200), (1, 64), multiple=multiple, scale=scale), Toy(3)
    budget = Budget("params", max(limit, model.costs(s.smallest).params))
    schedule = s.propose(budget, model, np.random.default_rng(seed))
    assert schedule in s
    assert budget.admits(model.costs(schedule))


def test_proposals_use_most_of_the_budget():
    s, model = space((2, 64), (2, 64), (2, 64)), Toy(3)
    budget = Budget("params", 2000)
    rng = np.random.default_rng(0)
    used = [model.costs(s.propose(budget, model, rng)).params / 2000 for _ in range(200)]
    assert np.median(used) > 0.9


def test_within_is_every_schedule_within_the_budget():
    s, model = space((1, 7), (2, 9)), Toy(2)
    budget = Budget("params", 60)
    found = {tuple(row) for row in s.within(budget, model, np.random.default_rng(0))}
    expected = {(a, b) for a in range(1, 8) for b in range(2, 10) if model.costs(FilterSchedule((a, b))).params <= 60}
    assert found == expected
    assert found


def test_within_samples_what_cannot_be_enumerated():
    s, model = space((1, 10**6), (1, 10**6), (1, 10**6)), Toy(3)
    rows = s.within(Budget("params", 10**9), model, np.random.default_rng(0), at_most=50)
    assert 0 < len(rows) <= 50
    assert (model.table(rows, "params") <= 10**9).all()


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_proposals_in_bulk_are_those_made_one_by_one(scale):
    s, model = space((1, 10**6), (4, 10**6), (1, 900), multiple=2, scale=scale), Toy(3)
    budget, rng = Budget("params", 10**7), np.random.default_rng(5)
    singly = np.unique([s.propose(budget, model, rng).filters for _ in range(50)], axis=0)
    model.asked = 0
    assert s.within(budget, model, np.random.default_rng(5), at_most=50).tolist() == singly.tolist()
    model.asked = 0
    s.within(budget, model, np.random.default_rng(5), at_most=4000)
    assert model.asked < 1000  # of the thousands of schedules times tens of bisections


@pytest.mark.parametrize("limit", [10**9, LARGEST_LIMIT])
def test_second_stages_of_all_combinations_of_forty_do_not_wrap(limit):
    stages = (StageConfig(low=2, high=40), StageConfig(high="combinations"), StageConfig(high=2**40))
    s, model = Space.of(FiltersConfig(stages=stages)), Toy(3)
    rows = s.within(Budget("params", limit), model, np.random.default_rng(0), at_most=200)
    costs = [model.costs(FilterSchedule(tuple(map(int, row)))).params for row in rows]
    assert max(costs) <= limit
    assert np.median(costs) > 0.9 * limit or limit == LARGEST_LIMIT


def test_a_budget_below_the_smallest_schedule_is_refused_with_numbers():
    s, model = space((4, 8), (4, 8)), Toy(2)
    assert not len(s.within(Budget("params", 3), model, np.random.default_rng(0)))
    with pytest.raises(
        ConfigError, match=r"memory <= 3 B admits no schedule: the smallest, 4-4, costs 45 B; allow at"
    ):
        s.propose(Budget("memory", 3), model, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"params <= 3 admits no schedule: the smallest, 4-4, costs 45; allow"):
        s.propose(Budget("params", 3), model, np.random.default_rng(0))
