import numpy as np
import pytest
from optuna.trial import TrialState
from planted import Planted, peaked

from search import queues, study
from search.cases import Case, correctness, judge, scores, standings, store_cases, stored_cases
from search.config import StudyConfig
from search.confirm import choose_cases, enqueue_next, fit_surrogate, runs_needed
from search.errors import ConfigError
from search.plan import make_plan
from search.schedule import FilterSchedule
from search.surrogate import Surrogate
from search.worker import carry_out_next, open_study

CONFIG = StudyConfig.model_validate(
    {
        "budgets": ["params <= 1500", "macs <= 40000"],
        "search": {"trials": 30, "seeds_per_trial": 2},
        "confirm": {"looks": [4, 8], "challengers": 4},
    }
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A study whose search has ended, on a surface where filters should stay level."""
    folder = tmp_path_factory.mktemp("searched")
    plan = make_plan(CONFIG)
    study.create(folder, CONFIG, plan.objective.directions, plan.data.fingerprint)
    storage = open_study(plan, folder)
    queues.enqueue_missing(storage, plan.proposals())
    evaluate = Planted(peaked(1, 0.01))
    while carry_out_next(plan, evaluate, storage):
        pass
    return plan, storage, evaluate


def test_cases_are_the_judged_rule_under_each_budget_against_at_most_k(searched):
    plan, storage, _ = searched
    cases = choose_cases(plan, fit_surrogate(storage, 0))
    assert [str(case.budget) for case in cases] == ["params <= 1500", "macs <= 40000"]
    for case in cases:
        schedules = [each.schedule for each in case.challengers]
        assert len(set(schedules)) == len(schedules) == 4
        assert case.schedule not in schedules
        assert all(case.budget.admits(plan.cost_model.costs(each)) for each in schedules)
        assert sum(each.origin == "surrogate" for each in case.challengers) == 2


def test_without_a_surrogate_the_rules_challenge_in_their_order(searched):
    plan, _, _ = searched
    case = choose_cases(plan, None)[0]
    assert [each.origin for each in case.challengers] == ["uniform", "geometric(1.5)", "geometric(2.5)", "linear"]


def test_where_no_rule_and_no_surrogate_challenges_random_schedules_do():
    plan = make_plan(CONFIG.model_copy(update={"rules": CONFIG.rules.model_copy(update={"compared": ()})}))
    first, again = choose_cases(plan, None), choose_cases(plan, None)
    assert first == again
    for case in first:
        assert [each.origin for each in case.challengers] == ["random"] * 4
        assert len({each.schedule for each in case.challengers} | {case.schedule}) == 5
        assert all(case.budget.admits(plan.cost_model.costs(each.schedule)) for each in case.challengers)


def test_a_budget_with_a_single_schedule_is_refused_before_the_search():
    stages = [{"low": 4, "high": 4}, {"low": 9, "high": 9}]
    config = StudyConfig.model_validate({"filters": {"stages": stages}, "budgets": ["params <= 500"]})
    with pytest.raises(ConfigError, match="admits no schedule besides 4-9, the member of rule doubling"):
        make_plan(config)


def test_cases_survive_the_storage(searched):
    plan, _, _ = searched
    for case in choose_cases(plan, None):
        assert Case.from_json(case.to_json()) == case


def test_confirmation_runs_look_by_look_with_fresh_seeds_on_the_test_split(searched):
    plan, storage, evaluate = searched
    assert stored_cases(storage) is None
    cases = choose_cases(plan, fit_surrogate(storage, 0))
    store_cases(storage, cases)
    assert stored_cases(storage) == cases
    searched_seeds = {seed for _, seeds, _ in evaluate.asked for seed in seeds}
    evaluate.asked.clear()
    looks = 0
    while enqueue_next(storage, cases, plan):
        assert enqueue_next(storage, cases, plan) == 0, "what is queued is not queued again"
        while carry_out_next(plan, evaluate, storage):
            pass
        looks += 1
    assert 1 <= looks <= 2
    assert {split for _, _, split in evaluate.asked} == {"test"}
    seeds = [seed for _, several, _ in evaluate.asked for seed in several]
    assert len(set(seeds)) == len(seeds)
    assert not searched_seeds & set(seeds)
    found = scores(storage)
    for case in cases:
        assert len(found[case.schedule]) in CONFIG.confirm.looks
        assert judge(case, found, CONFIG.confirm).next_look is None
    for standing in standings(storage, CONFIG.confirm):
        assert standing.rule_accuracy == found[standing.case.schedule].mean()
        assert standing.best_accuracy >= standing.rule_accuracy - 1e-12
    for schedule, images in correctness(storage).items():
        assert images.mean() == pytest.approx(found[schedule].mean(), abs=0.02)


def test_only_runs_up_to_the_first_gap_count(searched, tmp_path):
    plan, _, _ = searched
    study.create(tmp_path, CONFIG, ("maximize",), "data")
    storage = open_study(plan, tmp_path)
    schedule = FilterSchedule((8, 8, 8))
    for first in (0, 4, 8):
        storage.queue("confirm", [queues.confirmation(str(schedule), first, 4)])
    jobs = [storage.claim("confirm") for _ in range(3)]
    for job in (jobs[2], jobs[0]):
        job.set_user_attr("runs", [{"accuracy": job.number + i / 10} for i in range(4)])
        storage.confirm.tell(job, 0.5)
    np.testing.assert_allclose(scores(storage)[schedule], [0.0, 0.1, 0.2, 0.3])


def test_a_run_without_a_score_classified_nothing(searched, tmp_path):
    plan, _, _ = searched
    study.create(tmp_path, CONFIG, ("maximize",), "data")
    storage = open_study(plan, tmp_path)
    storage.queue("confirm", [queues.confirmation(str(FilterSchedule((8, 8, 8))), 0, 2)])
    job = storage.claim("confirm")
    job.set_user_attr("runs", [{"accuracy": 0.9}, {"reason": "diverged"}])
    storage.confirm.tell(job, 0.45)
    np.testing.assert_allclose(scores(storage)[FilterSchedule((8, 8, 8))], [0.9, 0.0])


def test_an_allowance_is_spent_case_by_case_and_never_exceeded(searched, tmp_path):
    searched_plan, searched_storage, evaluate = searched
    cases = choose_cases(searched_plan, fit_surrogate(searched_storage, 0))
    spent, decided = [], []
    for allowance in (19, 20, 60, 1000):
        config = CONFIG.model_copy(update={"confirm": CONFIG.confirm.model_copy(update={"allowance": allowance})})
        plan = make_plan(config)
        (tmp_path / str(allowance)).mkdir()
        storage = study.create(tmp_path / str(allowance), config, ("maximize",), "data")
        while jobs := enqueue_next(storage, cases, plan):
            assert len({job.user_attrs["schedule"] for job in storage.trials("confirm", TrialState.WAITING)}) <= jobs
            while carry_out_next(plan, evaluate, storage):
                pass
        spent.append(sum(job.user_attrs["count"] for job in storage.trials("confirm")))
        decided.append(sum(judge(case, scores(storage), config.confirm).next_look is None for case in cases))
        assert spent[-1] <= allowance
    assert spent[0] == 0, "a look of five schedules takes 20 runs"
    assert 0 < spent[1] <= 20 < spent[2]
    assert decided == sorted(decided)
    assert decided[-1] == len(cases)


def test_nothing_is_needed_for_settled_challengers(searched):
    plan, _, _ = searched
    case = choose_cases(plan, None)[0]
    rng = np.random.default_rng(0)
    found = {each.schedule: 0.95 + 0.004 * rng.standard_normal(4) for each in case.challengers}
    found[case.schedule] = 0.95 + 0.004 * rng.standard_normal(4)
    found[case.challengers[0].schedule] = 0.80 + 0.004 * rng.standard_normal(4)
    needed = runs_needed([case], found, CONFIG.confirm)
    assert case.challengers[0].schedule not in needed
    assert needed[case.schedule] == 8


def test_no_schedule_challenges_twice_even_in_a_space_of_a_few():
    stages = [{"low": 2, "high": 5}, {"low": 2, "high": 6}]
    rules = {"judged": ["uniform"], "compared": ["doubling", "reverse", "geometric(0.8)"]}
    config = StudyConfig.model_validate({"filters": {"stages": stages}, "budgets": ["params <= 150"], "rules": rules})
    plan = make_plan(config)
    filters = np.array([(a, b) for a in range(2, 6) for b in range(2, 7)])
    for bend in np.linspace(-0.05, 0.05, 11):
        surrogate = Surrogate.fit(filters, 0.8 + bend * np.log2(filters[:, 0]) - 0.01 * np.log2(filters[:, 1]), 0)
        (case,) = choose_cases(plan, surrogate)
        schedules = [each.schedule for each in case.challengers]
        assert len(set(schedules)) == len(schedules)
