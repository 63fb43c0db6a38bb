"""Pages of series: what several verdicts say together, from planted verdicts."""

import json
from pathlib import Path

import pytest

from search import configfile
from search.errors import ConfigError
from search.hypotheses import _followed, main

CONFIGS = Path(__file__).parents[1] / "configs"


def verdict(config, outcome="near-optimal", rule="doubling", **changes):
    accuracy = {"mean": 0.9, "low": 0.89, "high": 0.91, "runs": 16}
    return [
        {
            "cost": budget.cost,
            "limit": budget.limit,
            "rule": rule,
            "rule_schedule": "4-8",
            "best_schedule": "6-6",
            "rule_accuracy": accuracy,
            "best_accuracy": accuracy,
            "regret": {"mean": 0.001, "low": 0.0, "high": 0.004},
            "verdict": outcome,
            "budget_used": 0.9,
            "unexplored_probability": 0.2,
        }
        | changes
        for budget in config.budgets
    ]


def plant(folder, name, stages, *rules, overrides=(), outcomes=None):
    """A study folder with a verdict and the best filters of every stage, the same under every budget."""
    config = configfile.read(CONFIGS / f"{name}.yaml", overrides)
    folder.mkdir(parents=True)
    configfile.write(config, folder / "config.yaml")
    verdicts = [each for rule in rules for each in verdict(config, rule=rule)]
    for each, outcome in zip(verdicts, outcomes or (), strict=False):
        each["verdict"] = outcome
    limits = [{"best": best, "low": low, "high": high} for low, best, high in stages]
    best = [{"cost": budget.cost, "limit": budget.limit, "stages": limits} for budget in config.budgets]
    (folder / "verdict.json").write_text(json.dumps({"verdicts": verdicts, "best_filters": best}))


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        ({4: (14, 16), 5: (30, 33)}, "2^k-1"),
        ({4: (7, 9), 5: (10, 10)}, "2k"),
        ({4: (7, 9), 5: (20, 25)}, "neither"),
        ({4: (8, 15), 5: (10, 31)}, "undecided: either may hold"),
        ({2: (50, 60), 4: (14, 16), 5: (30, 33)}, "2^k-1"),
    ],
)
def test_a_law_is_excluded_by_one_interval_that_leaves_its_number_out(limits, answer):
    seconds = [{"low": low, "best": low, "high": high} for low, high in limits.values()]
    assert _followed(list(limits), seconds) == answer


@pytest.mark.integration
def test_combinations_tell_what_is_excluded_and_how_many_filters_are_in_use(tmp_path):
    brief = ("training.epochs=1", "data.images=600")
    for k, stages in ((2, [(3, 4, 5), (3, 4, 6)]), (4, [(7, 8, 9), (7, 9, 11)])):
        name = f"combinations-k{k}"
        plant(tmp_path / name, name, stages, f"combinations({k})", "doubling", overrides=brief)
    main([str(tmp_path)])
    said = (tmp_path / "README.md").read_text()
    assert "| what 2^k-1 costs in parameters | **2k** |" in said
    assert "differ: their intervals have no number in common" in said
    assert "| 4 | 854 parameters | 15 | 8 | 8 (7 to 9) | 9 (7 to 11) | 4-8 | 0.00 to 0.40 | near-optimal |" in said
    assert (tmp_path / "second_stage.svg").read_text().startswith("<?xml")
    rows = (tmp_path / "filters_in_use.csv").read_text().splitlines()
    assert rows[0] == "features,stage,filters,in_use,sd,runs"
    assert [row.split(",")[:3] for row in rows[1:]] == [
        ["2", "1", "2"],
        ["2", "2", "3"],
        ["4", "1", "4"],
        ["4", "2", "15"],
    ]
    assert all(1 <= float(row.split(",")[3]) <= float(row.split(",")[2]) for row in rows[1:])


def test_classes_move_the_best_schedule_only_where_intervals_part(tmp_path):
    for name, middle in (("classes-2", (4, 5, 6)), ("classes-10", (8, 9, 10))):
        plant(tmp_path / name, name, [(4, 8, 12), middle, (4, 8, 12)], "doubling")
    main([str(tmp_path)])
    said = (tmp_path / "README.md").read_text()
    assert "told apart as 2, 10 classes" in said
    assert "- 1,500 parameters: **it moves**: the intervals of stage 2 part" in said
    assert said.count("| 2 |") == said.count("| 10 |") == 2


def test_memory_says_where_the_verdict_turns(tmp_path):
    outcomes = ["near-optimal"] * 4 + ["not near-optimal"]
    plant(tmp_path / "memory", "memory", [(4, 8, 12)] * 3, "doubling", outcomes=outcomes)
    main([str(tmp_path / "memory")])
    said = (tmp_path / "memory" / "README.md").read_text()
    assert "- Between 256.0 KiB and 128.0 KiB the verdict turns from `near-optimal` to `not near-optimal`." in said
    assert said.count("the verdict turns") == 1
    assert (tmp_path / "memory" / "falling_memory.svg").exists()


def test_other_studies_are_no_series(tmp_path):
    plant(tmp_path / "digits", "digits", [(4, 8, 12)] * 3, "doubling")
    with pytest.raises(ConfigError, match="is no series: name a folder of combinations or of classes studies"):
        main([str(tmp_path / "digits")])
    (tmp_path / "digits" / "verdict.json").unlink()
    with pytest.raises(ConfigError, match=r"has no verdict\.json; run its study to the end first"):
        main([str(tmp_path / "digits")])
