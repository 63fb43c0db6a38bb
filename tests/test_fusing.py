import pytest
import torch

from search import configfile, fusing
from search.evaluate import Fidelity
from search.plan import make_plan
from search.samplers import make_sampler
from search.schedule import FilterSchedule
from search.study import create_in_memory
from search.worker import make_evaluator

SIZES = [FilterSchedule((filters, filters)) for filters in range(1, 10)]
KEPT = "replicas_together_to_macs"


@pytest.mark.parametrize("winning", range(len(SIZES) + 1))
def test_sizes_that_win_are_counted_by_halving(winning):
    asked = []

    def wins(size):
        asked.append(size)
        return size in SIZES[:winning]

    assert fusing.count_winning(SIZES, wins) == winning
    assert len(asked) <= 5
    assert len(set(asked)) == len(asked)


@pytest.fixture(scope="module")
def plan():
    config = {"filters": {"stages": [{"low": 2, "high": 16}] * 2}, "budgets": ["params <= 400", "macs <= 9000"]}
    return make_plan(configfile.parse(config, "here"))


@pytest.fixture
def storage(plan):
    sampler = make_sampler(plan.config.search, plan.space, plan.cost_model, plan.config.seed)
    return create_in_memory(plan.config, plan.objective.directions, sampler)


class Timed:
    """Beyond `limit` MACs replicas take twice as long together as alone, else an eighth of it."""

    def __init__(self, plan, limit):
        self.plan, self.limit, self.asked = plan, limit, []

    def step_seconds(self, schedule, replicas):
        self.asked.append(schedule)
        slow = replicas > 1 and self.plan.cost_model.costs(schedule)["macs"] > self.limit
        return 2.0 if slow else 1 / replicas


@pytest.mark.parametrize(("limit", "kept"), [(10**9, None), (0, 0)])
def test_either_every_schedule_or_none_trains_together(plan, storage, limit, kept):
    fusing.decide(plan, storage, Timed(plan, limit))
    assert storage.search.user_attrs[KEPT] == kept
    assert fusing.together(plan, storage)(plan.space.smallest) is (kept is None)


def test_between_the_two_size_decides_and_is_measured_once(plan, storage):
    fusing.decide(plan, storage, Timed(plan, 6000))
    kept = storage.search.user_attrs[KEPT]
    assert 0 < kept <= 6000
    together = fusing.together(plan, storage)
    decided = [together(schedule) for schedule in map(FilterSchedule, [(2, 2), (3, 3), (8, 2), (8, 8)])]
    assert decided == [True, True, False, False]
    again = Timed(plan, 0)
    fusing.decide(plan, storage, again)
    assert again.asked == []
    assert storage.search.user_attrs[KEPT] == kept


def test_only_what_a_budget_admits_is_measured(plan, storage):
    timed = Timed(plan, 10**9)
    fusing.decide(plan, storage, timed)
    assert timed.asked
    for schedule in timed.asked:
        assert any(budget.admits(plan.cost_model.costs(schedule)) for budget in plan.config.budgets)


def test_a_network_that_fails_is_left_to_the_workers(plan, storage):
    class Failing:
        def step_seconds(self, schedule, replicas):
            raise RuntimeError("no")

    fusing.decide(plan, storage, Failing())
    assert not fusing.together(plan, storage)(plan.space.smallest)


@pytest.mark.integration
def test_what_was_measured_decides_how_workers_train(plan, storage):
    def train(evaluate, *seeds):
        return evaluate(plan.space.smallest, seeds, Fidelity(1), "validation")

    assert [run.replicas for run in train(make_evaluator(plan, storage), 1, 2)] == [2, 2]
    storage.search.set_user_attr(KEPT, 0)
    apart = train(make_evaluator(plan, storage), 1, 2)
    assert [run.replicas for run in apart] == [1, 1]
    assert [run.loss for run in apart] == [train(make_evaluator(plan), seed)[0].loss for seed in (1, 2)]


@pytest.mark.integration
def test_the_real_measurement_leaves_global_generators_alone(plan, storage):
    before = torch.get_rng_state()
    fusing.decide(plan, storage, make_evaluator(plan))
    assert fusing.decided(storage).keys() == {KEPT}
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_recorded_of_what_was_not_measured(storage):
    assert fusing.decided(storage) == {}
