"""Exact questions: planted tables and surfaces whose answer is known, and the published table's figures."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from test_table import NATS

from search import configfile
from search.config import StudyConfig
from search.errors import ConfigError, DataError
from search.exact import exact_findings
from search.plan import make_plan
from search.records import verdict_values
from search.run import run_study
from search.table import Columns

CONFIGS = Path(__file__).parents[1] / "configs"
WIDTHS = (2, 4, 8)


def accuracy(filters):
    """Best where the second stage is narrow; no growth rule's shape."""
    a, b, c = filters
    return 0.5 + 0.01 * a - 0.02 * b + 0.015 * c


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "planted.csv"
    rows = [(f, accuracy(f), sum(f)) for f in product(WIDTHS, repeat=3)]
    lines = [f"{'-'.join(map(str, f))},{value:.4f},{cost}" for f, value, cost in rows]
    path.write_text("\n".join(["schedule,accuracy,params", *lines]) + "\n")
    return path


def config_of(path, **changes):
    table = {"path": str(path), "exhaustive": True} | changes.pop("table", {})
    values = {
        "table": {key: value for key, value in table.items() if value is not None},
        "filters": {"multiple": 4, "stages": [{"low": 4, "high": 8}] * 3},
        "budgets": ["params <= 16"],
        "rules": {"judged": ["schedule(4-4-8)"], "compared": ["uniform", "reverse"]},
    }
    return StudyConfig.model_validate(values | changes)


def nats_findings(schedule, **changes):
    """The regret of one schedule under budgets equal to its own costs, in points."""
    if not NATS.exists():
        pytest.skip(f"{NATS} is absent; set FILTER_SEARCH_DATA to the folder that holds it")
    config = configfile.read(CONFIGS / "nats.yaml", [f"table.path={NATS}"])
    costs = make_plan(config).cost_model.costs(type(config.rules.judged[0].filters).parse(schedule))
    budgets = [f"{cost} <= {costs[cost]}" for cost in costs.known]
    tree = config.model_dump(mode="json")
    tree |= {"budgets": budgets, "rules": {"judged": [f"schedule({schedule})"], "compared": ["uniform"]}}
    plan = make_plan(configfile.parse(tree | changes, "test"))
    return exact_findings(plan)


@pytest.mark.parametrize(
    ("schedule", "params", "macs", "activations"),
    [
        ("16-32-32-64-64", 0.99, 0.24, 0.50),
        ("24-24-24-24-24", 0.02, 1.51, None),
        ("64-32-32-16-16", 1.37, 2.29, None),
    ],
)
def test_the_published_tables_regrets_are_reproduced(schedule, params, macs, activations):
    """Independent figures: worked out from the file without this package, to two decimals of a point."""
    findings = nats_findings(schedule)
    found = {each.case.budget.cost: each.verdict.regret for each in findings.findings}
    for cost, points in (("params", params), ("macs", macs), ("activations", activations)):
        if points is not None:
            assert round(100 * found[cost].mean, 2) == points
            assert found[cost].low == found[cost].mean == found[cost].high


def test_a_planted_table_is_answered_exactly(table):
    """Within 16 params are 4-4-4, 4-4-8, 4-8-4 and 8-4-4; `accuracy` gives 0.52, 0.58, 0.44 and 0.56."""
    rules = {"judged": ["schedule(4-4-8)", "schedule(4-8-4)"], "compared": ["uniform", "reverse"]}
    best, worst = exact_findings(make_plan(config_of(table, rules=rules))).findings
    assert best.verdict.best is None
    assert best.best is best.rule
    assert (best.verdict.outcome, best.verdict.regret.mean) == ("near-optimal", 0)
    assert (str(worst.best.schedule), worst.verdict.regret.mean) == ("4-4-8", pytest.approx(0.14))
    assert {str(each.schedule): each.accuracy.mean for each in worst.challengers} == pytest.approx(
        {"4-4-8": 0.58, "8-4-4": 0.56, "4-4-4": 0.52}
    )


@pytest.mark.parametrize(("margin", "outcome"), [(0.0199, "not near-optimal"), (0.02, "near-optimal")])
def test_the_margin_decides_and_equal_to_it_is_near_optimal(table, margin, outcome):
    config = config_of(
        table, rules={"judged": ["schedule(8-4-4)"], "compared": ["uniform"]}, confirm={"margin": margin}
    )
    verdict = verdict_values(exact_findings(make_plan(config)))["verdicts"][0]
    assert verdict["best_schedule"] == "4-4-8"
    assert verdict["regret"] == {"mean": 0.02, "low": 0.02, "high": 0.02}
    assert verdict["verdict"] == outcome
    assert verdict["rule_accuracy"]["runs"] == 1
    assert verdict["unexplored_probability"] == 0
    assert verdict["runs_to_decide"] is None


def test_a_planted_surface_has_its_best_ratio_found():
    for best_ratio in (1.0, 2.0):
        config = planted(best_ratio, exhaustive=True, noise_sd=None)
        plan = make_plan(config)
        findings = exact_findings(plan)
        for each, thumb in zip(findings.findings, findings.rule_of_thumb, strict=True):
            pool = plan.space.within(each.case.budget, plan.cost_model, np.random.default_rng(0))
            known = plan.source.truth.accuracies(pool)
            rule = plan.source.truth.accuracies(np.array([each.case.schedule.filters]))[0]
            assert each.verdict.regret.mean == pytest.approx(known.max() - rule, abs=1e-9)
            assert abs(np.log2(thumb.interval.ratio / best_ratio)) < 0.5


def planted(best_ratio, **table):
    """A small planted study; a strong optimum, so that few trials see it."""
    surface = {"best_ratio": best_ratio, "strength": 0.6}
    values = {"surface": surface, "images": {}, "noise_sd": 0.002} | table
    return StudyConfig.model_validate(
        {
            "name": "planted",
            "table": {key: value for key, value in values.items() if value is not None},
            "filters": {"stages": [{"low": 2, "high": 32}] * 3},
            "budgets": ["params <= 1500", "activations <= 500"],
        }
    )


def test_the_whole_study_is_written_without_a_run(table, tmp_path):
    plan = make_plan(config_of(table))
    folder = tmp_path / "study"
    ended = run_study(plan, folder, workers=1, device="cpu", resume=False, command=["test"], show=lambda _: None)
    assert [each.verdict.outcome for each in ended.standings] == [
        each.verdict.outcome for each in ended.findings.findings
    ]
    assert not (folder / "best").exists()
    verdict = json.loads((folder / "verdict.json").read_text())
    assert (verdict["schema"], verdict["weighted"]) == (1, None)
    report = (folder / "report.html").read_text()
    assert "(known)" in report
    assert "Every schedule of the table within the budget was compared" in report
    assert "confidence" not in report.partition('<h2 id="method"')[0]
    resolved = configfile.read(folder / "config.yaml")
    assert resolved == plan.config
    (folder / "environment.json").write_text("")  # as a power failure may leave it
    again = run_study(plan, folder, workers=1, device="cpu", resume=True, command=["test"], show=lambda _: None)
    assert verdict_values(again.findings) == verdict
    assert json.loads((folder / "environment.json").read_text())["command"] == "test"
    with pytest.raises(ConfigError, match="looks accuracies up in planted and trains nothing"):
        _ = plan.data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budgets": ["macs <= 5"]},
            r"budget macs <= 5 needs macs, which the table does not tell \(it tells params\)",
        ),
        ({"filters": {"stages": [{"low": 2, "high": 8}] * 3}}, r"filters allow 343 .* holds 27 of them; it spans"),
        (
            {"filters": {"multiple": 4, "stages": [{"low": 4, "high": 8}] * 2}},
            r"holds 0 of them; it spans \{multiple: 2, stages: \[\{low: 2, high: 8\}, \{low: 2",
        ),
        ({"rules": {"judged": ["schedule(4-4)"]}}, r"rule schedule\(4-4\) has 2 stages, the space 3"),
        ({"rules": {"judged": ["schedule(8-8-8)"]}}, r"has no member within params <= 16"),
        ({"table": {"exhaustive": False, "noise_sd": 0.0, "columns": {"accuracy": ["a", "b"]}}}, "noise_sd"),
    ],
)
def test_what_a_table_cannot_answer_is_refused(table, changes, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        make_plan(config_of(table, **changes))


def test_a_table_that_is_absent_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"none.csv cannot be read \(No such file or directory\)"):
        make_plan(config_of(tmp_path / "none.csv"))


def test_several_columns_are_shared_out_by_the_study_seed(tmp_path):
    path = tmp_path / "seeds.csv"
    rows = [f"{a}-{b}-{c},0.5,0.6,0.7,0.8,{a + b + c}" for a, b, c in product((4, 8), repeat=3)]
    path.write_text("\n".join(["schedule,s0,s1,s2,s3,params", *rows]) + "\n")
    table = {"exhaustive": False, "columns": {"accuracy": ["s0", "s1", "s2", "s3"]}}
    changes = {"search": {"seeds_per_trial": 2}, "confirm": {"looks": [2]}}
    plan = make_plan(config_of(path, table=table, **changes))
    assert isinstance(plan.source.draw, Columns)
    schedule = plan.judged[0].schedule
    search, confirm = plan.seeds("search", schedule, 14, 2), plan.seeds("confirm", schedule, 0, 2)
    assert sorted(search + confirm) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="the table has 4 accuracy columns, and no run is used twice"):
        make_plan(config_of(path, table=table, search={"seeds_per_trial": 3}, confirm={"looks": [2]}))


@pytest.mark.parametrize("name", ["nats", "planted"])
def test_the_ready_configurations_are_read(name):
    config = configfile.read(CONFIGS / f"{name}.yaml")
    assert config.name == name
    assert config.table is not None
