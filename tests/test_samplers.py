from typing import get_args

import numpy as np
import optuna
import pytest
from benchmarks.samplers import fit_milliseconds, heading, measure, measure_coverage, tables
from benchmarks.truths import PlainCosts, planted, ridge
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from search.config import SamplerName, SearchConfig
from search.cost import Budget
from search.errors import ConfigError
from search.samplers import OptunaSampler, distributions, named_sampler
from search.schedule import FilterSchedule
from search.space import Range, Space

SPACE = Space((Range(2, 64, "log"), Range(1, 40, "linear"), Range(3, 3, "log")), 2)
COSTS = PlainCosts()
SMALL, LARGE = Budget("macs", 20_000), Budget("macs", 120_000)
NAMES = get_args(SamplerName)
BLIND = ("band", "qmc", "random", "macs")
"""Those that do not look at scores."""


def queue(sampler, trials, budgets=(SMALL, LARGE), origin="sampler"):
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for proposal in range(trials):
        budget = budgets[proposal % len(budgets)]
        study.enqueue_trial({}, user_attrs={"proposal": proposal, "budget": str(budget), "origin": origin})
    return study


def filters(trial):
    return tuple(trial.params[name] * SPACE.multiple for name, _ in SPACE.dimensions())


def carry_out(study, trial):
    accuracy = float(ridge(np.array([filters(trial)]))[0])
    trial.set_constraint("fits", -1.0)
    study.tell(trial, accuracy)


def proposals(make, trials, budgets=(SMALL, LARGE)):
    """Filters of each proposal in turn, every one asked of a sampler made anew."""
    study = queue(make(), trials, budgets)
    for _ in range(trials):
        study.sampler = make()
        carry_out(study, study.ask(distributions(SPACE)))
    return [filters(trial) for trial in study.trials]


def making(name, seed=3):
    return lambda: named_sampler(name, SPACE, COSTS, seed)


def cost(schedule):
    return COSTS.costs(FilterSchedule(schedule)).macs


def test_the_configuration_offers_every_sampler():
    assert set(get_args(SearchConfig.model_fields["sampler"].annotation)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_proposal_is_in_the_space_and_within_the_budget_it_aims_at(name):
    found = proposals(making(name), 14)
    assert all(FilterSchedule(each) in SPACE for each in found)
    assert all(cost(each) <= (SMALL, LARGE)[i % 2].limit for i, each in enumerate(found))


@pytest.mark.parametrize("name", NAMES)
def test_a_proposal_does_not_depend_on_who_asks_nor_on_the_global_seed(name):
    one = named_sampler(name, SPACE, COSTS, 3)
    np.random.seed(1)  # noqa: NPY002 # the global seed is what must not matter
    first = proposals(lambda: one, 14)
    np.random.seed(2)  # noqa: NPY002
    assert proposals(making(name), 14) == first


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"macs"}))
def test_another_study_seed_gives_other_proposals(name):
    assert proposals(making(name, seed=3), 6) != proposals(making(name, seed=4), 6)


@pytest.mark.parametrize("name", BLIND)
def test_what_does_not_learn_does_not_depend_on_the_order_of_asking(name):
    study = queue(making(name)(), 8)
    waiting = study.get_trials(states=(TrialState.WAITING,))
    found = {}
    for trial in reversed(waiting):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        claimed = optuna.Trial(study, trial._trial_id)
        for dimension, distribution in distributions(SPACE).items():
            claimed._suggest(dimension, distribution)
        found[trial.number] = filters(claimed)
    assert [found[i] for i in range(8)] == proposals(making(name), 8)


@pytest.mark.parametrize("name", ["band", "qmc"])
def test_every_budget_gets_the_whole_of_its_own_even_spread(name):
    """Of one Sobol sequence dealt in turn, each of two budgets would get one half of the first stage's range."""
    alone = proposals(making(name), 8, (LARGE,))
    shared = proposals(making(name), 16, (SMALL, LARGE))
    assert shared[1::2] == alone


def test_band_just_fits():
    # One multiple more in every stage would not.
    for each in proposals(making("band"), 16):
        grown = tuple(min(f + 2, 2 * r.high) for f, r in zip(each, SPACE.ranges, strict=True))
        assert cost(grown) > SMALL.limit


def test_macs_come_from_the_most_down():
    found = proposals(making("macs"), 10, (LARGE,))
    costs = [cost(each) for each in found]
    assert costs == sorted(costs, reverse=True)
    pool = SPACE.within(LARGE, COSTS, np.random.default_rng(0))
    assert costs[0] == COSTS.table(pool, "macs").max()
    assert len(set(found)) == 10


def test_macs_begins_again_when_all_were_proposed():
    few = Budget("macs", cost(SPACE.smallest.filters) + 1)
    found = proposals(making("macs"), 3, (few,))
    assert found == [SPACE.smallest.filters] * 3


class Fixed(BaseSampler):
    """Proposes one point; in part relatively."""

    def __init__(self, point):
        self.point = point

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {"stage_1": self.point["stage_1"]}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.point[param_name]


def test_a_point_that_fits_is_taken_as_it_is_and_another_scaled_down_by_its_shape():
    def proposed(point):
        sampler = OptunaSampler(SPACE, COSTS, 0, lambda seed: Fixed(point))
        return proposals(lambda: sampler, 1, (LARGE,))[0]

    assert proposed({"stage_1": 5, "stage_2": 9, "stage_3": 3}) == (10, 18, 6)
    first, second, _ = proposed({"stage_1": 60, "stage_2": 30, "stage_3": 3})
    assert cost((first, second, 6)) <= LARGE.limit < cost((first + 2, second + 2, 6))
    assert 1.5 < first / second < 2.7


def test_optunas_samplers_are_given_a_seed_of_the_study_and_the_proposal():
    seeds = []

    def make(seed):
        seeds.append(seed)
        return Fixed({"stage_1": 5, "stage_2": 9, "stage_3": 3})

    for study_seed in (0, 1):
        sampler = OptunaSampler(SPACE, COSTS, study_seed, make)
        proposals(lambda sampler=sampler: sampler, 3)
    assert len(set(seeds)) == 6


def test_generations_of_nsga2_follow_each_other():
    study = queue(making("nsga2")(), 52)
    for _ in range(52):
        study.sampler = making("nsga2")()
        carry_out(study, study.ask(distributions(SPACE)))
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in study.trials]
    assert generations == [0] * 50 + [1] * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_that_admits_nothing_is_named(name):
    study = queue(making(name)(), 1, (Budget("macs", 1),))
    with pytest.raises(ConfigError, match="budget macs <= 1 admits no schedule"):
        study.ask(distributions(SPACE))


def test_no_other_dimension_is_proposed():
    with pytest.raises(ValueError, match="'stage_9' is no dimension of this space"):
        making("band")().sample_independent(None, None, "stage_9", None)


def test_the_surrogate_recommends_better_than_luck_on_planted_surfaces():
    """The benchmark in short: `make bench-samplers` is the long one."""
    truths = list(planted())
    kept = [measure(truth, "qmc", False, repeat, (30,)) for truth in truths for repeat in range(4)]
    luckiest, surrogate = np.mean([each["regret"][30] for each in kept], axis=0)
    assert surrogate < luckiest / 2
    assert surrogate < 0.2
    kept.append(measure(truths[0], "tpe", True, 0, (30,)))
    kept.append(measure_coverage(truths[0], "qmc", 0))
    page = "\n".join([*heading(None), *tables(kept, truths)])
    assert "| tpe, Optuna's own | " in page
    assert page.count("\n| qmc | ") == 3
    assert page.count("\n| ridge | qmc | ") == 4
    *_, shares = kept[-1]["shares"].values()
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.8
    assert fit_milliseconds(truths[0], 30) > 0
