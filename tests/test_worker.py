from dataclasses import dataclass

import numpy as np
import pytest
from optuna.trial import TrialState
from planted import Failing, Planted, peaked

from search import queues, study
from search.cases import correctness, scores
from search.config import StudyConfig
from search.confirm import choose_cases
from search.lifeline import AFTER_FAILURE, Stopping
from search.memorylimit import memory_limit
from search.plan import StudyPlan, make_plan
from search.progress import progress
from search.records import trial_rows
from search.schedule import FilterSchedule
from search.worker import carry_out_next, open_study, work


def prepare(tmp_path, **changes):
    config = StudyConfig.model_validate(
        {"search": {"trials": 40, "seeds_per_trial": 2} | changes.pop("search", {})} | changes
    )
    plan = make_plan(config)
    study.create(tmp_path, config, plan.objective.directions, plan.data.fingerprint)
    storage = open_study(plan, tmp_path)
    queues.enqueue_missing(storage, plan.proposals())
    return plan, storage


def carry_out_all(plan, evaluate, storage):
    jobs = 0
    while carry_out_next(plan, evaluate, storage):
        jobs += 1
        assert jobs < 1000
    return storage.trials("search")


def test_every_queued_trial_is_priced_scored_and_told(tmp_path):
    plan, storage = prepare(tmp_path)
    evaluate = Planted(peaked(2, 0.02))
    trials = carry_out_all(plan, evaluate, storage)
    assert [trial.number for trial in trials] == list(range(40))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    for trial in trials:
        runs = trial.user_attrs["runs"]
        assert trial.value == pytest.approx(np.mean([run["accuracy"] for run in runs]))
        assert any(budget.admits(study.costs_of(trial)) for budget in plan.config.budgets)
    seeds = [run["seed"] for trial in trials for run in trial.user_attrs["runs"]]
    assert len(set(seeds)) == len(seeds) == 80


def test_search_never_asks_for_the_test_split(tmp_path):
    plan, storage = prepare(tmp_path)
    evaluate = Planted(peaked(2, 0.02))
    carry_out_all(plan, evaluate, storage)
    assert {split for _, _, split in evaluate.asked} == {"validation"}


def test_rules_come_first_and_the_sampler_aims_at_the_budgets_in_turn(tmp_path):
    plan, storage = prepare(tmp_path)
    carry_out_all(plan, Planted(peaked(2, 0.02)), storage)
    rows = list(trial_rows(storage))
    assert [row["origin"] for row in rows[:3]] == ["doubling"] * 3
    assert rows[0]["schedule"] == "4-7-15"
    sampled = [row["budget"] for row in rows if row["origin"] == "qmc"]
    assert sampled
    assert sampled == [str(plan.config.budgets[i % 3]) for i in range(len(sampled))]


def test_the_global_seed_and_the_order_of_workers_do_not_matter(tmp_path):
    rows = []
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        np.random.seed(seed)  # noqa: NPY002 # the global state is the point
        plan, storage = prepare(tmp_path / name)
        carry_out_all(plan, Planted(peaked(2, 0.02)), storage)
        rows.append(list(trial_rows(storage)))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("reason", ["diverged", "oom"])
def test_a_failed_run_is_a_finished_trial_with_its_reason(tmp_path, reason):
    plan, storage = prepare(tmp_path, search={"trials": 3})
    trials = carry_out_all(plan, Failing(reason), storage)
    assert {trial.state for trial in trials} == {TrialState.FAIL}
    assert {trial.user_attrs["reason"] for trial in trials} == {reason}
    assert progress(storage).finished == 3


@dataclass
class Narrow:
    """A device on which nothing of more than so much predicted memory fits."""

    planted: Planted
    plan: StudyPlan
    fits: int

    def __call__(self, schedule, seeds, *rest, **more):
        if self.plan.cost_model.costs(schedule).memory > self.fits:
            self.planted.asked.append((schedule, tuple(seeds), "none"))
            return Failing("oom")(schedule, seeds, *rest, **more)
        return self.planted(schedule, seeds, *rest, **more)


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_nothing_as_large_as_what_did_not_fit_is_tried_again(tmp_path, sampler):
    plan, storage = prepare(tmp_path, budgets=["params <= 20000"], search={"sampler": sampler, "trials": 40})
    device = Narrow(Planted(peaked(2, 0.02)), plan, 2**20)
    trials = carry_out_all(plan, device, storage)
    assert progress(storage).finished == 40
    limit = None
    for schedule, _, split in device.planted.asked:
        memory = plan.cost_model.costs(schedule).memory
        assert limit is None or memory < limit, "tried at a size that did not fit before"
        limit = memory if split == "none" else limit
    assert limit is not None
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert {trial.user_attrs["reason"] for trial in failed} == {"oom"}
    assert min(trial.user_attrs["did_not_fit"] for trial in failed) == limit
    assert all(trial.user_attrs["did_not_fit"] == study.costs_of(trial).memory for trial in failed)
    untrained = [trial for trial in failed if "was not trained" in trial.user_attrs["detail"]]
    assert {trial.user_attrs["origin"] for trial in untrained}.isdisjoint({sampler}), "proposed what cannot fit"
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(complete) > 20
    cases = choose_cases(plan, None, memory_limit(*storage.studies))
    challengers = [plan.cost_model.costs(each.schedule).memory for case in cases for each in case.challengers]
    assert challengers
    assert max(challengers) < limit


def test_a_rule_as_large_as_what_did_not_fit_is_not_trained(tmp_path):
    plan, storage = prepare(tmp_path, budgets=["params <= 1500", "params <= 20000"], search={"trials": 12})
    device = Narrow(Planted(peaked(2, 0.02)), plan, 1)
    trials = carry_out_all(plan, device, storage)
    asked = [plan.cost_model.costs(schedule).memory for schedule, _, _ in device.planted.asked]
    assert asked == sorted(set(asked), reverse=True)
    assert {trial.user_attrs["reason"] for trial in trials} == {"oom"}
    untrained = [trial for trial in trials if "was not trained: it needs" in trial.user_attrs["detail"]]
    assert len(untrained) == 12 - len(asked) > 0
    assert progress(storage).finished == 12


def test_a_lack_of_memory_in_confirmation_is_no_score_and_is_not_tried_again(tmp_path):
    plan, storage = prepare(tmp_path, search={"trials": 1})
    carry_out_next(plan, Planted(peaked(2, 0.02)), storage)
    schedule = FilterSchedule((8, 8, 8))
    storage.queue("confirm", [queues.confirmation(str(schedule), 0, 2)])
    carry_out_next(plan, Failing("oom"), storage)
    (job,) = storage.trials("confirm")
    assert (job.state, job.user_attrs["reason"]) == (TrialState.FAIL, "oom")
    assert memory_limit(*storage.studies) == plan.cost_model.costs(schedule).memory
    queues.enqueue_given_up(storage)
    assert len(storage.trials("confirm")) == 1
    assert schedule not in scores(storage)
    assert progress(storage).out_of_memory == 1


def test_a_run_that_diverged_in_confirmation_classified_nothing(tmp_path):
    plan, storage = prepare(tmp_path, search={"trials": 1})
    carry_out_next(plan, Planted(peaked(2, 0.02)), storage)
    schedule = FilterSchedule((8, 8, 8))
    for first in (0, 2):
        storage.queue("confirm", [queues.confirmation(str(schedule), first, 2)])
    carry_out_next(plan, Planted(peaked(2, 0.02)), storage)
    alone = correctness(storage)[schedule]
    carry_out_next(plan, Failing("diverged"), storage)
    assert list(scores(storage)[schedule][2:]) == [0, 0]
    np.testing.assert_allclose(correctness(storage)[schedule], alone / 2)


def test_what_a_network_raises_is_retried_then_given_up_with_its_traceback(tmp_path):
    plan, storage = prepare(tmp_path, search={"trials": 2})
    calls = []

    def broken(schedule, *_, **__):
        calls.append(schedule)
        msg = "the head does not fit"
        raise RuntimeError(msg)

    trials = carry_out_all(plan, broken, storage)
    assert len(calls) == 2 * study.MOST_ATTEMPTS
    assert {trial.user_attrs["reason"] for trial in trials} == {"crash"}
    assert "RuntimeError: the head does not fit" in trials[0].user_attrs["detail"]
    assert progress(storage).finished == 0


def test_a_job_that_fails_ends_its_worker_so_that_the_next_begins_in_another(tmp_path, monkeypatch):
    plan, storage = prepare(tmp_path, search={"trials": 2})

    def broken(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("search.worker.make_evaluator", lambda *_: broken)
    monkeypatch.setattr("search.worker._AFTER_FAILURE_SECONDS", 0)
    monkeypatch.setattr("search.lifeline.signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as told:
        work(plan, tmp_path, "a supervisor", Stopping())
    assert told.value.code == AFTER_FAILURE
    assert [trial.state for trial in storage.trials("search")] == [TrialState.WAITING] * 2


@pytest.mark.parametrize(("objective", "values"), [("weighted", 1), ("pareto", 3)])
def test_objectives(tmp_path, objective, values):
    plan, storage = prepare(tmp_path, search={"objective": objective, "trials": 30})
    trials = carry_out_all(plan, Planted(peaked(2, 0.02)), storage)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == 30
    assert {len(trial.values) for trial in complete} == {values}
    if objective == "pareto":
        assert complete[0].values[1:] == [1445.0, float(study.costs_of(complete[0]).memory)]
