"""The whole loop on planted truths: search, confirmation, verdict and files, without processes or training."""

import csv
import json
import signal

import numpy as np
import pytest
from planted import Failing, InlineWorkers, Planted, conduct, peaked

from search import outcome, queues, study
from search.cases import Exploration, correctness, store_exploration, stored_cases
from search.config import StudyConfig
from search.coordinate import Launch, Stop
from search.errors import InterruptedStudyError, NoTrialError
from search.findings import conclude
from search.plan import make_plan
from search.progress import progress
from search.records import verdict_values
from search.splits import Splits
from search.verdict import image_bootstrap
from search.worker import make_evaluator, open_study


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("search.coordinate.POLL_SECONDS", 0)


def test_where_doubling_is_best_it_is_near_optimal(tmp_path):
    plan, storage = conduct(tmp_path, Planted(peaked(2, 0.02)))
    findings = conclude(plan, storage)
    assert {finding.verdict.outcome for finding in findings.findings} == {"near-optimal"}
    for each in findings.rule_of_thumb:
        assert each.interval.low <= 2 <= each.interval.high


def test_where_level_filters_are_best_doubling_is_not_and_something_close_to_best_is_found(tmp_path):
    surface = peaked(1, 0.02)
    plan, storage = conduct(tmp_path, Planted(surface))
    for finding in conclude(plan, storage).findings:
        assert finding.verdict.outcome == "not near-optimal"
        pool = plan.space.within(finding.case.budget, plan.cost_model, np.random.default_rng(0))
        best = max(surface(type(finding.case.schedule)(tuple(map(int, row)))) for row in pool)
        assert best - surface(finding.best.schedule) < plan.config.confirm.margin
        regret = best - surface(finding.case.schedule)
        assert finding.verdict.regret.low <= regret


def test_the_same_seed_gives_the_same_verdict_file_and_the_global_seed_does_not_matter(tmp_path):
    values = []
    for name, seed in (("a", 1), ("b", 2)):
        np.random.seed(seed)  # noqa: NPY002 # the global state is the point
        plan, storage = conduct(tmp_path / name, Planted(peaked(1.5, 0.02)))
        values.append(verdict_values(conclude(plan, storage)))
    assert json.dumps(values[0]) == json.dumps(values[1])


def test_a_margin_chosen_after_looking_makes_an_exploratory_verdict(tmp_path):
    plan, storage = conduct(tmp_path, Planted(peaked(1, 0.02)))
    before = conclude(plan, storage)
    terms = plan.config.confirm.model_copy(update={"margin": 0.3})
    store_exploration(storage, Exploration(terms, tuple(stored_cases(storage))))
    after = conclude(plan, storage)
    assert [each.verdict for each in after.findings] == [each.verdict for each in before.findings]
    assert {each.verdict.outcome for each in after.findings} == {"not near-optimal"}
    assert {each.verdict.outcome for each in after.explored} == {"near-optimal"}
    values = verdict_values(after)["verdicts"]
    assert [(each["margin"], each["exploratory"]) for each in values] == [(0.005, False)] * 2 + [(0.3, True)] * 2


def test_the_study_folder_is_written(tmp_path):
    plan, storage = conduct(tmp_path, Planted(peaked(1, 0.02)))
    outcome.write(plan, storage, tmp_path)
    with (tmp_path / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    with (tmp_path / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [int(row["number"]) for row in trials] == list(range(40))
    assert {row["split"] for row in runs if row["purpose"] == "search"} == {"validation"}
    assert {row["split"] for row in runs if row["purpose"] == "confirm"} == {"test"}
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["schema"], verdict["study"], verdict["margin"]) == (1, "digits", 0.005)
    assert verdict["score"] == "accuracy"
    first = verdict["verdicts"][0]
    assert (first["cost"], first["limit"], first["rule"], first["rule_schedule"]) == (
        "params",
        1500,
        "doubling",
        "4-7-15",
    )
    assert set(first["rule_accuracy"]) == {"mean", "low", "high", "runs", "collapsed_runs"}
    assert set(first["regret"]) == {"mean", "low", "high"}
    thumb = verdict["rule_of_thumb"][0]
    assert set(thumb) == {"cost", "limit", "ratio", "low", "high", "curve", "confirmed"}
    assert 2.0 in {each["ratio"] for each in thumb["confirmed"]} & {each["ratio"] for each in thumb["curve"]}
    assert (tmp_path / "report.html").is_file()


def test_a_stopped_search_leaves_what_is_finished(tmp_path):
    config = StudyConfig.model_validate({"search": {"trials": 30, "seeds_per_trial": 1}})
    plan = make_plan(config)
    study.create(tmp_path, config, plan.objective.directions, plan.data.fingerprint)
    storage = open_study(plan, tmp_path)
    queues.enqueue_missing(storage, plan.proposals())
    stop = Stop(None)

    def after_five(storage):
        if progress(storage).finished == 5:
            stop.catch(2, None)

    launch = Launch(plan, storage, InlineWorkers(plan, Planted(peaked(2, 0.02)), storage), stop, after_five)
    assert not launch.search()
    assert stop.heeded
    assert outcome.write(plan, storage, tmp_path) is None
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 1 + 5


def test_a_study_without_a_single_complete_trial_says_why(tmp_path):
    with pytest.raises(NoTrialError, match=r"no trial could be completed.*\n.*4-7-15 diverged"):
        conduct(tmp_path, Failing("diverged"))


def test_confirmation_of_which_some_keeps_crashing_ends_undecided(tmp_path):
    class CrashesOnTest(Planted):
        def __call__(self, schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
            if score_on == "test" and str(schedule) in ("4-7-15", "4-9-18"):  # both budgets' rules
                msg = "killed"
                raise RuntimeError(msg)
            return super().__call__(schedule, seeds, fidelity, score_on, on_epoch, keep_weights)

    plan, storage = conduct(tmp_path, CrashesOnTest(peaked(1, 0.02)))
    assert {finding.verdict.outcome for finding in conclude(plan, storage).findings} == {"undecided"}


def test_image_limits_hold_for_the_best_of_several_challengers(tmp_path):
    small = {"search": {"trials": 12, "seeds_per_trial": 2}, "confirm": {"looks": [8]}}
    plan, storage = conduct(tmp_path, Planted(peaked(2, 0.02)), budgets=["params <= 1500"], **small)
    correct, confidence = correctness(storage), plan.config.confirm.confidence
    for finding in conclude(plan, storage).findings:
        count = len(finding.challengers)
        assert count == plan.config.confirm.challengers > 1
        for each in finding.challengers:
            pair = correct[finding.case.schedule], correct[each.schedule]
            alone, together = (
                image_bootstrap(*pair, level, np.random.default_rng(1), 20_000)
                for level in (confidence, 1 - (1 - confidence) / count)
            )
            step = (alone.low - together.low) / 2
            assert step > 0
            assert each.images.low == pytest.approx(together.low, abs=step)
            assert each.images.high == pytest.approx(alone.high, abs=step)


@pytest.mark.integration
def test_balanced_accuracy_goes_from_the_runs_to_the_verdict(tmp_path):
    plan = make_plan(
        StudyConfig.model_validate(
            {
                "budgets": ["params <= 1500"],
                "data": {"classes": [[0, 1, 2, 3, 4, 5, 6, 7], 8, 9]},
                "training": {"epochs": 1, "score": "balanced_accuracy"},
            }
        )
    )
    plan, storage = conduct(
        tmp_path,
        make_evaluator(plan),
        budgets=["params <= 1500"],
        data=plan.config.data.model_dump(),
        training=plan.config.training.model_dump(),
        search={"trials": 6, "seeds_per_trial": 1},
        confirm={"looks": [2, 4], "challengers": 1},
    )
    (finding,) = conclude(plan, storage).findings
    labels = plan.data.labels[Splits(plan.data, plan.config.data).test]
    shares = [correctness(storage)[finding.rule.schedule][labels == label].mean() for label in range(3)]
    assert finding.rule.accuracy.mean == pytest.approx(np.mean(shares))
    (challenger,) = finding.challengers
    assert challenger.images.mean == pytest.approx(challenger.accuracy.mean - finding.rule.accuracy.mean)
    assert verdict_values(conclude(plan, storage))["score"] == "balanced_accuracy"


def test_a_mended_cause_of_crashes_lets_a_resume_go_on(tmp_path):
    def broken(*_, **__):
        msg = "the head does not fit"
        raise RuntimeError(msg)

    with pytest.raises(NoTrialError, match="the head does not fit"):
        conduct(tmp_path, broken)
    config = StudyConfig.model_validate(study.load(tmp_path, "digits").search.user_attrs["config"])
    plan = make_plan(config)
    storage = open_study(plan, tmp_path)
    storage.release("search", lambda _: True, "interrupted", counts=False)
    queues.enqueue_missing(storage, plan.proposals())
    workers = InlineWorkers(plan, Planted(peaked(2, 0.02)), storage)
    assert Launch(plan, storage, workers, Stop(None), lambda _: None).search()
    assert progress(storage).finished == config.search.trials


def test_a_second_signal_leaves_the_third_to_end_the_process(capsys):
    stop, before = Stop(None), signal.getsignal(signal.SIGTERM)
    try:
        stop.catch(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) is before
        assert "once more ends them at once" in capsys.readouterr().err
        stop.catch(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(InterruptedStudyError):
        stop.end()
