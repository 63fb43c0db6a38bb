"""Studies rehearsed in memory are studies: the same trials, cases and verdicts as through the storage on disk."""

from itertools import product

import numpy as np
import pytest
from planted import InlineWorkers

from search import queues, study
from search.cases import Case, Challenger, stored_cases
from search.config import StudyConfig
from search.coordinate import Launch, Stop
from search.cost import Budget
from search.findings import conclude
from search.plan import make_plan
from search.rehearsal import Rehearsed, Truth, conduct, rehearse
from search.rules import Rule
from search.schedule import FilterSchedule
from search.verdict import Interval, Verdict
from search.worker import make_evaluator, open_study


def small(seed):
    """Where doubling is best under one budget, and far from it under the other."""
    surface = {"best_ratio": 2.83, "strength": 0.1, "size_gain": 0.6}
    table = {"surface": surface, "images": {}, "noise_sd": 0.003, "noise_spread": 1.5}
    return StudyConfig.model_validate(
        {
            "seed": seed,
            "table": table,
            "budgets": ["params <= 1500", "activations <= 500"],
            "search": {"trials": 20, "seeds_per_trial": 2},
            "confirm": {"looks": [8, 16, 32], "challengers": 3},
        }
    )


def conduct_on_disk(config, folder):
    plan = make_plan(config)
    study.create(folder, config, plan.objective.directions, plan.source.fingerprint)
    storage = open_study(plan, folder)
    queues.enqueue_missing(storage, plan.proposals())
    workers = InlineWorkers(plan, make_evaluator(plan), storage)
    launch = Launch(plan, storage, workers, Stop(None), lambda _: None)
    assert launch.search()
    launch.confirm()
    return plan, storage


def record_of(storage):
    """What was trained for what, and what came of it, but for times and processes."""
    return {
        purpose: [
            (
                trial.state,
                trial.params,
                trial.values,
                trial.user_attrs["schedule"],
                [(run["seed"], run["accuracy"]) for run in trial.user_attrs["runs"]],
            )
            for trial in storage.trials(purpose)
        ]
        for purpose in ("search", "confirm")
    }


def test_a_rehearsed_study_is_the_study_through_the_storage_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("search.coordinate.POLL_SECONDS", 0)
    plan, stored = conduct_on_disk(small(seed=7), tmp_path)
    in_memory, cases, _ = conduct(plan)
    assert record_of(in_memory) == record_of(stored)
    assert cases == stored_cases(stored)

    published = conclude(plan, stored).findings
    other = make_plan(small(seed=0))
    truths = {budget: Truth.of(other, budget) for budget in other.config.budgets}
    rehearsed = rehearse(other, 7, truths)
    assert [each.case for each in rehearsed] == [each.case for each in published]
    assert [each.verdict for each in rehearsed] == [each.verdict for each in published]
    near, not_near = rehearsed
    assert (near.verdict.outcome, not_near.verdict.outcome) == ("near-optimal", "not near-optimal")
    assert near.unexplored == published[0].unexplored_probability
    for mine, theirs in zip(rehearsed, published, strict=True):
        assert mine.published_shortfall == truths[mine.case.budget].shortfall(theirs.best.schedule)
        assert mine.runs == theirs.rule.runs + sum(each.runs for each in theirs.challengers)


def test_the_truth_is_that_of_every_schedule_within_the_budget():
    plan = make_plan(small(seed=0))
    truth = Truth.of(plan, Budget("params", 1500))
    accuracy = {
        filters: plan.source.truth.accuracies(np.array([filters]))[0]
        for filters in product(range(2, 8), range(4, 12), range(8, 24))
        if plan.cost_model.costs(FilterSchedule(filters)).params <= 1500
    }
    best = max(accuracy, key=accuracy.__getitem__)
    assert truth.best == accuracy[best]
    worse, worst = FilterSchedule((3, 5, 9)), FilterSchedule((2, 4, 8))
    assert truth.shortfall(worst, worse) == pytest.approx(accuracy[best] - accuracy[worse.filters])
    assert truth.shortfall(worst, FilterSchedule(best)) == 0


@pytest.mark.parametrize(
    ("outcome", "confirmed_regret", "regret", "wrong", "wrong_of_space"),
    [
        ("near-optimal", 0.004, 0.004, False, False),
        ("near-optimal", 0.004, 0.006, False, True),
        ("near-optimal", 0.006, 0.006, True, True),
        ("not near-optimal", 0.006, 0.006, False, False),
        ("not near-optimal", 0.004, 0.006, True, False),
        ("not near-optimal", 0.004, 0.004, True, True),
        ("undecided", 0.006, 0.006, False, False),
    ],
)
def test_which_verdicts_are_wrong(outcome, confirmed_regret, regret, wrong, wrong_of_space):
    rule = FilterSchedule((4, 8))
    case = Case(Budget("params", 1500), Rule("doubling"), rule, (Challenger(FilterSchedule((6, 6)), "surrogate"),))
    verdict = Verdict(outcome, 16, Interval(0, 0, 1), {}, None, (), None, None, None)
    rehearsed = Rehearsed(case, verdict, regret, confirmed_regret, 0, 0, 32, None)
    assert rehearsed.wrong(0.005) == wrong
    assert rehearsed.wrong_of_space(0.005) == wrong_of_space
