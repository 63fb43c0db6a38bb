import ast
import csv
import re
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from search import rehearsal
from search.cases import Case, Challenger
from search.confirm import choose_cases
from search.loopcalibration import SEED, STUDIES, cells, faults, page, tallies, tally, trial_cells
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.study import accuracy_of, run_seeds
from search.table import Noise

KEPT = Path(__file__).parents[1] / "studies" / "calibration" / "loop"
NEAR_THE_MARGIN, FAR_FROM_EVERY_RULE = cells()[2], cells()[4]


def short(*every):
    return faults(tallies(every, 6, seed=1))


# ---- the acceptance, short


def test_whole_studies_err_seldom_and_find_what_is_better():
    assert short(NEAR_THE_MARGIN, FAR_FROM_EVERY_RULE) == []


def luckiest_trials_challenge(monkeypatch):
    """Who scored best in the search, in place of whom the surrogate recommends."""
    searched = []

    def choose(plan, surrogate):
        trials = sorted(searched[-1].trials("search", TrialState.COMPLETE), key=accuracy_of, reverse=True)
        schedules = list(dict.fromkeys(FilterSchedule.parse(trial.user_attrs["schedule"]) for trial in trials))
        found = []
        for fitted in plan.judged:
            rivals = [
                each
                for each in schedules
                if each != fitted.schedule and fitted.budget.admits(plan.cost_model.costs(each))
            ][: plan.config.confirm.challengers]
            challengers = tuple(Challenger(each, "search") for each in rivals)
            found.append(Case(fitted.budget, fitted.rule, fitted.schedule, challengers))
        return found

    monkeypatch.setattr(rehearsal, "fit_surrogate", lambda storage, seed: searched.append(storage))
    monkeypatch.setattr(rehearsal, "choose_cases", choose)


def only_rules_challenge(monkeypatch):
    monkeypatch.setattr(rehearsal, "choose_cases", lambda plan, surrogate: choose_cases(plan, None))


def search_scores_judge(monkeypatch):
    """The search's runs of a schedule, over and over, in place of fresh ones on the test split."""

    def seeds(plan, purpose, schedule, first, count):
        runs = plan.config.search.seeds_per_trial
        return [
            run_seeds(plan.config.seed, "search", schedule, index % runs, 1)[0]
            for index in range(first, first + count)
        ]

    score = Noise.score
    monkeypatch.setattr(StudyPlan, "seeds", seeds)
    monkeypatch.setattr(Noise, "score", lambda noise, truth, *run: score(noise, truth, *run[:2], "validation"))


@pytest.mark.parametrize(
    ("mutate", "cell", "complaint"),
    [
        (luckiest_trials_challenge, FAR_FROM_EVERY_RULE, "find what is better"),
        (only_rules_challenge, FAR_FROM_EVERY_RULE, "find what is better"),
        (search_scores_judge, NEAR_THE_MARGIN, "are wrong"),
    ],
)
def test_a_study_without_its_safeguards_fails(mutate, cell, complaint, monkeypatch):
    mutate(monkeypatch)
    assert any(complaint in fault for fault in short(cell))


def test_the_global_seed_does_not_matter():
    first = tally(FAR_FROM_EVERY_RULE, 1, first_seed=3, tests=1)
    np.random.seed(1)  # noqa: NPY002 # the global seed is what must not matter
    assert tally(FAR_FROM_EVERY_RULE, 1, first_seed=3, tests=1) == first


def row(**changes):
    return {
        "best_ratio": 1.0, "noise": 0.5, "cost": "params", "limit": 1500, "regret": 0.0, "studies": 10, "wrong": 0,
        "wrong_low": 0.0, "undecided": 0, "found": 10,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"wrong": 3, "wrong_low": 0.051}, r"3 of 10 verdicts are wrong"),
        ({"undecided": 3}, r"3 of 10 are undecided"),
        ({"undecided": 3, "regret": 2.0}, r"3 of 10 are undecided"),
        ({"regret": 3.0, "found": 7}, r"7 of 10 find what is better"),
    ],
)
def test_each_fault_is_told(changes, complaint):
    (fault,) = faults([row(**changes)])
    assert re.fullmatch(f"ratio 1.0, noise 0.5, params <= 1500: {complaint}", fault)


@pytest.mark.parametrize(
    "changes",
    [{"wrong": 3, "wrong_low": 0.049}, {"undecided": 2}, {"undecided": 9, "noise": 1.0},
     {"undecided": 9, "regret": 1.0}, {"regret": 2.9, "found": 0}, {"regret": 3.0, "found": 8}],
)  # fmt: skip
def test_what_is_not_asked_is_no_fault(changes):
    assert faults([row(**changes)]) == []


# ---- the kept tables


def kept(name):
    with (KEPT / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{key: parsed(value) for key, value in each.items()} for each in csv.DictReader(file)]


def parsed(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def test_the_kept_cells_are_those_of_the_acceptance():
    rows = kept("cells")
    assert [{key: each[key] for key in vars(cells()[0])} for each in rows[::2]] == [vars(cell) for cell in cells()]
    assert {each["studies"] for each in rows} == {STUDIES}
    assert faults(rows) == []


def test_the_cells_are_those_asked_for():
    rows = kept("cells")
    assert sum(each["regret"] < 0.5 for each in rows) >= 2
    assert sum(each["regret"] >= 3 for each in rows) >= 2
    assert any(0.9 < each["regret"] < 1.2 for each in rows)
    assert {0.15, 0.5, 1.0} <= {each["noise"] for each in rows}
    assert len(kept("trials")) == 2 * len(trial_cells())


@pytest.mark.slow
def test_a_kept_cell_is_measured_again():
    """Else run `make calibration`. A few counts may differ by the last bits of another NumPy or SciPy."""
    number = cells().index(FAR_FROM_EVERY_RULE)
    expected = [each for each in kept("cells") if each["best_ratio"] == FAR_FROM_EVERY_RULE.best_ratio]
    again = tally(FAR_FROM_EVERY_RULE, STUDIES, SEED + 10_000 * number, tests=2 * len(cells()))
    for each, old in zip(again, expected, strict=True):
        assert each == pytest.approx(old, abs=3)


def test_the_kept_page_is_made_from_the_kept_tables():
    text = (KEPT / "README.md").read_text(encoding="utf-8")
    made = re.search(r"it was made (.*)\.\n", text)[1]
    assert page({name: kept(name) for name in ("cells", "trials")}, made) == text
