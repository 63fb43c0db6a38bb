"""Probes: whether a verdict is an artefact of the learning rate or of brief training."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from planted import InlineWorkers, Planted, peaked
from scipy.stats import spearmanr

from search import queues, study
from search.config import StudyConfig
from search.coordinate import Launch, Stop
from search.findings import conclude
from search.plan import make_plan
from search.records import run_rows, verdict_values
from search.soundness import difference, probes, rank_correlations
from search.worker import open_study


@dataclass
class Recipes(Planted):
    """A planted truth that turns at other learning rates and with full training, where a test says so."""

    at_rates: dict = field(default_factory=dict)
    in_full: object = None

    def __call__(self, schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
        surface = self.at_rates.get(fidelity.learning_rate_factor, self.surface)
        if fidelity.epochs == 60 and self.in_full:
            surface = self.in_full
        self.asked.append((schedule, tuple(seeds), score_on, fidelity))
        return [Planted(surface, self.noise)._run(schedule, seed, fidelity.epochs) for seed in seeds]


def conduct(folder, evaluate, **soundness):
    config = StudyConfig.model_validate(
        {
            "budgets": ["params <= 1500", "macs <= 40000"],
            "search": {"trials": 30, "seeds_per_trial": 2},
            "confirm": {"looks": [16, 32]},
            "soundness": soundness,
        }
    )
    plan = make_plan(config)
    study.create(folder, config, plan.objective.directions, plan.data.fingerprint)
    storage = open_study(plan, folder)
    queues.enqueue_missing(storage, plan.proposals())
    launch = Launch(plan, storage, InlineWorkers(plan, evaluate, storage), Stop(None), lambda _: None)
    assert launch.search()
    assert launch.confirm()
    evaluate.asked.clear()
    launch.probe()
    return plan, storage


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("search.coordinate.POLL_SECONDS", 0)


def test_a_verdict_that_does_not_depend_on_the_learning_rate_holds(tmp_path):
    plan, storage = conduct(tmp_path, Recipes(peaked(1, 0.02)))
    findings = conclude(plan, storage)
    assert [each.steadiness for each in findings.sensitivities] == ["holds", "holds"]
    for each in findings.sensitivities:
        assert [at.factor for at in each.at] == [0.5, 1, 2]
        assert all(at.difference.low > plan.config.confirm.margin for at in each.at)


def test_a_verdict_that_turns_at_double_the_learning_rate_is_told_of(tmp_path):
    plan, storage = conduct(tmp_path, Recipes(peaked(1, 0.02), at_rates={2.0: peaked(2, 0.02)}))
    for each in conclude(plan, storage).sensitivities:
        assert each.steadiness == "turns"
        half, plain, double = (at.difference for at in each.at)
        assert half.low > 0
        assert plain.low > 0
        assert double.high < 0


def test_probes_take_seeds_of_their_own_and_the_split_they_are_meant_for(tmp_path):
    evaluate = Recipes(peaked(1, 0.02))
    _, storage = conduct(tmp_path, evaluate, learning_rate_runs=4, fidelity_schedules=4)
    rows = list(run_rows(storage))
    others = {row["seed"] for row in rows if row["purpose"] != "probe"}
    probing = [row for row in rows if row["purpose"] == "probe"]
    assert probing
    assert not others & {row["seed"] for row in probing}
    assert {(row["learning_rate_factor"], row["split"], row["epochs"]) for row in probing} == {
        (0.5, "test", 15),
        (2.0, "test", 15),
        (1.0, "validation", 15),
        (1.0, "validation", 60),
    }


def test_a_resume_queues_no_probe_twice(tmp_path):
    plan, storage = conduct(tmp_path, Recipes(peaked(1, 0.02)), learning_rate_runs=4)
    before = len(storage.trials("probe"))
    assert before
    queues.enqueue_probes(storage, probes(plan, storage))
    assert len(storage.trials("probe")) == before


def test_none_are_trained_where_none_are_asked_for(tmp_path):
    plan, storage = conduct(tmp_path, Recipes(peaked(1, 0.02)), learning_rate_runs=0)
    assert storage.trials("probe") == []
    values = verdict_values(conclude(plan, storage))
    assert (values["sensitivity"], values["fidelity"]) == ([], [])


def test_brief_training_that_ranks_backwards_misleads_and_one_that_does_not_is_left_alone(tmp_path):
    for name, in_full, misleads in (("same", None, False), ("other", peaked(4, 0.05), True)):
        (tmp_path / name).mkdir()
        evaluate = Recipes(peaked(0.5, 0.05), in_full=in_full)
        plan, storage = conduct(tmp_path / name, evaluate, learning_rate_runs=0, fidelity_schedules=12)
        checks = conclude(plan, storage).fidelity_checks
        assert [check.schedules for check in checks] == [12, 12]
        assert [check.misleads for check in checks] == [misleads] * 2
        assert all(check.between_brief > 0.5 for check in checks)
        assert all((check.between_fidelities < 0.2) == misleads for check in checks)
        assert verdict_values(conclude(plan, storage))["fidelity"][0]["misleads"] == misleads


def test_rank_correlations_are_means_over_pairs_of_runs():
    rng = np.random.default_rng(0)
    brief, full = rng.random((7, 3)), rng.random((7, 3))
    together, within_brief, within_full = rank_correlations(brief, full)
    pairs = [spearmanr(a, b).statistic for a in brief.T for b in full.T]
    assert together == pytest.approx(np.mean(pairs))
    for runs, found in ((brief, within_brief), (full, within_full)):
        pairs = [spearmanr(runs[:, i], runs[:, j]).statistic for i in range(3) for j in range(i)]
        assert found == pytest.approx(np.mean(pairs))


def test_runs_in_which_all_schedules_tie_have_no_ranks_and_are_left_out():
    rng = np.random.default_rng(0)
    brief, full = rng.random((5, 3)), rng.random((5, 3))
    brief[:, 0] = 0.1
    together, within_brief, _ = rank_correlations(brief, full)
    assert (together, within_brief) == pytest.approx(rank_correlations(brief[:, 1:], full)[:2])
    assert np.isnan(rank_correlations(np.full((5, 3), 0.1), full)[:2]).all()


def test_schedules_that_all_tie_are_not_checked(tmp_path):
    evaluate = Recipes(lambda schedule: 0.5, noise=0.0)
    plan, storage = conduct(tmp_path, evaluate, learning_rate_runs=0, fidelity_schedules=4)
    assert conclude(plan, storage).fidelity_checks == ()


def test_difference_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        rule, rival = 0.9 + 0.01 * rng.standard_normal(16), 0.91 + 0.03 * rng.standard_normal(40)
        limits = difference(rule, rival, 0.9)
        hits += limits.low <= 0.01 <= limits.high
    assert 0.875 < hits / 1000 < 0.925


def test_runs_without_any_noise_say_nothing():
    found = difference(np.full(4, 0.9), np.full(4, 0.95), 0.95)
    assert (found.low, found.high) == (-1, 1)
    assert found.mean == pytest.approx(0.05)
