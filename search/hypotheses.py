"""What several studies say together of the question's hypotheses: `python -m search.hypotheses FOLDER`.

A series lies in one folder, a study to a folder below it, and differs in one thing: the features that classes combine,
the classes told apart, or (one study) the memory allowed. Owns how its verdicts are put side by side, and the page
that says so; it judges nothing a second time.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search import activity, configfile
from search.config import StudyConfig
from search.cost import Budget, amount
from search.errors import ConfigError
from search.evaluate import Fidelity, Scored
from search.folder import write_whole
from search.pages import fill
from search.plan import make_plan
from search.records import csv_text
from search.schedule import FilterSchedule
from search.seriesfigures import draw_falling, draw_second_stage
from search.splits import Splits
from search.study import run_seeds
from search.wording import chance, percent, short_budget
from search.worker import make_evaluator

_IN_USE_RUNS = 4
_TELLING_FEATURES = 4  # from here 2^k-1 and 2k lie far enough apart to be told from each other


@dataclass(frozen=True)
class Member:
    """One study of a series: its configuration and its verdict.json."""

    folder: Path
    config: StudyConfig
    verdict: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Member":
        """The study in a folder.

        Raises:
            ConfigError: It has no verdict yet.
        """
        path = folder / "verdict.json"
        if not path.is_file():
            msg = f"{folder} has no verdict.json; run its study to the end first"
            raise ConfigError(msg)
        return cls(folder, configfile.read(folder / "config.yaml"), json.loads(path.read_text()))

    def verdict_of(self, rule: str, budget: Budget) -> Mapping[str, Any]:
        """What was decided of one rule under one budget."""
        return next(
            each
            for each in self.verdict["verdicts"]
            if each["rule"] == rule and (each["cost"], each["limit"]) == (budget.cost, budget.limit)
        )

    def best_filters(self, budget: Budget) -> Sequence[Mapping[str, int]]:
        """`best`, `low` and `high` of every stage under one budget."""
        found = (
            each["stages"]
            for each in self.verdict["best_filters"]
            if (each["cost"], each["limit"]) == (budget.cost, budget.limit)
        )
        return next(found)


def main(folders: Sequence[str]) -> None:
    """Write README.md, figure and tables of every series named."""
    torch.set_num_threads(1)  # tiny networks
    for name in folders:
        folder = Path(name)
        members = [Member.read(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
        members = members or [Member.read(folder)]
        write_whole(folder / "README.md", page(folder, members))
        sys.stdout.write(f"{folder / 'README.md'}\n")


def page(folder: Path, members: Sequence[Member]) -> str:
    """The page of one series; its figure and tables are written beside it.

    Raises:
        ConfigError: The studies are no series that this module knows.
    """
    pages: dict[bool, Callable[[Path, Sequence[Member]], str]] = {
        all(member.config.data.source == "combinations" for member in members): _combinations,
        len(members) > 1 and all(member.config.data.source == "digits" for member in members): _classes,
        len(members) == 1 and {budget.cost for budget in members[0].config.budgets} == {"memory"}: _memory,
    }
    if True not in pages:
        msg = f"{folder} is no series: name a folder of combinations or of classes studies, or a memory study"
        raise ConfigError(msg)
    return pages[True](folder, members)


def _combinations(folder: Path, members: Sequence[Member]) -> str:
    members = sorted(members, key=lambda member: member.config.data.features)
    features = [member.config.data.features for member in members]
    budgets = [[member.config.budgets[place] for member in members] for place in range(3)]
    seconds = [
        [member.best_filters(budget)[1] for member, budget in zip(members, column, strict=True)] for column in budgets
    ]
    names = ("what 2^k-1 costs in parameters", "what 2^k-1 costs in activations", short_budget(budgets[2][0]))
    write_whole(folder / "second_stage.svg", draw_second_stage(features, dict(zip(names, seconds, strict=True))))
    in_use = _filters_in_use(members)
    write_whole(folder / "filters_in_use.csv", csv_text(list(in_use[0]), in_use))
    values = {
        "rows": [
            _combinations_row(member, budget, member.best_filters(budget))
            for member in members
            for budget in member.config.budgets
        ],
        "answers": [(name, _followed(features, column)) for name, column in zip(names, seconds, strict=True)],
        "moves": _part(seconds[2][0], seconds[2][-1]),
        "ends": (features[0], features[-1]),
        "third": names[2],
        "in_use": in_use,
        "telling": _TELLING_FEATURES,
        "runs": _IN_USE_RUNS,
        "margin": members[0].config.confirm.margin,
        "percent": percent,
    }
    return fill("combinations.md", values)


def _combinations_row(member: Member, budget: Budget, stages: Sequence[Mapping[str, int]]) -> dict[str, object]:
    features = member.config.data.features
    return {
        "features": features,
        "budget": short_budget(budget),
        "power": 2**features - 1,
        "twice": 2 * features,
        "stages": stages,
        "combinations": member.verdict_of(f"combinations({features})", budget),
        "doubling": member.verdict_of("doubling", budget),
    }


def _followed(features: Sequence[int], seconds: Sequence[Mapping[str, int]]) -> str:
    """Which of 2^k-1 and 2k the best second stage may follow: what no telling interval excludes."""
    telling = [(k, limits) for k, limits in zip(features, seconds, strict=True) if k >= _TELLING_FEATURES]
    left = [
        name
        for name, filters in (("2^k-1", {k: 2**k - 1 for k in features}), ("2k", {k: 2 * k for k in features}))
        if all(limits["low"] <= filters[k] <= limits["high"] for k, limits in telling)
    ]
    return "neither" if not left else left[0] if len(left) == 1 else "undecided: either may hold"


def _part(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether two intervals have no number in common."""
    return one["high"] < other["low"] or other["high"] < one["low"]


def _filters_in_use(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Effective number of filters of both stages of `k-(2^k-1)`, over a few runs of the probing seeds."""
    rows = []
    for member in members:
        plan, features = make_plan(member.config), member.config.data.features
        schedule = FilterSchedule((features, 2**features - 1))
        evaluate, splits = make_evaluator(plan), Splits(plan.data, member.config.data)
        seeds = run_seeds(member.config.seed, "probe", schedule, 0, _IN_USE_RUNS)
        fidelity = Fidelity.brief(member.config.training)
        runs = evaluate(schedule, seeds, fidelity, "validation", keep_weights=True)
        used = np.array(
            [
                activity.of_run(
                    member.config.network, schedule, run, plan.data, splits.train_validation(run.seed, fidelity.share)
                )
                for run in runs
                if isinstance(run, Scored)
            ]
        )
        for stage, (mean, deviation) in enumerate(zip(used.mean(0), used.std(0, ddof=1), strict=True)):
            rows.append(
                {
                    "features": features,
                    "stage": stage + 1,
                    "filters": schedule.filters[stage],
                    "in_use": round(float(mean), 2),
                    "sd": round(float(deviation), 2),
                    "runs": len(used),
                }
            )
    return rows


def _classes(folder: Path, members: Sequence[Member]) -> str:
    members = sorted(members, key=lambda member: make_plan(member.config).data.classes)
    classes = [make_plan(member.config).data.classes for member in members]
    rows, moves = [], []
    for budget in members[0].config.budgets:
        stages = [member.best_filters(budget) for member in members]
        for number, member, best in zip(classes, members, stages, strict=True):
            rows.append(
                {
                    "classes": number,
                    "budget": short_budget(budget),
                    "stages": best,
                    "doubling": member.verdict_of("doubling", budget),
                }
            )
        parted = [
            stage + 1
            for stage in range(len(stages[0]))
            if any(_part(one[stage], other[stage]) for one in stages for other in stages)
        ]
        moves.append((short_budget(budget), parted))
    values = {"rows": rows, "moves": moves, "classes": classes, "margin": members[0].config.confirm.margin}
    return fill("classes.md", values | {"percent": percent})


def _memory(folder: Path, members: Sequence[Member]) -> str:
    (member,) = members
    rows = [
        {"budget": amount("memory", budget.limit), "limit": budget.limit, **member.verdict_of("doubling", budget)}
        for budget in sorted(member.config.budgets, key=lambda each: -each.limit)
    ]
    margin = member.config.confirm.margin
    write_whole(folder / "falling_memory.svg", draw_falling(rows, margin))
    return fill("memory.md", {"rows": rows, "margin": margin, "percent": percent, "chance": chance})


if __name__ == "__main__":
    main(sys.argv[1:])
