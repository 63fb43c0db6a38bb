"""Cases: which rule is judged against whom, and what the confirmation runs so far say of it.

Owns the cases' form in the storage and how scores are read from it. Knows nothing of how cases are chosen or trained,
so that a study's standing can be told without loading what trains it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from search.config import ConfirmConfig
from search.cost import Budget
from search.looks import Plan
from search.rules import Rule
from search.runrecord import unpack_counts
from search.schedule import FilterSchedule
from search.study import Storage
from search.verdict import Verdict, decide

Scores = Mapping[FilterSchedule, NDArray[np.float64]]


@dataclass(frozen=True)
class Challenger:
    """A schedule confirmed against a rule, and where it comes from: a rule's name or `surrogate`."""

    schedule: FilterSchedule
    origin: str


@dataclass(frozen=True)
class Case:
    """One rule under one budget, and who challenges it.

    Attributes:
        budget: The budget.
        rule: The rule judged.
        schedule: The rule's largest member within the budget.
        challengers: At most as many as configured, none equal to `schedule`.
    """

    budget: Budget
    rule: Rule
    schedule: FilterSchedule
    challengers: tuple[Challenger, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the storage."""
        return {
            "budget": str(self.budget),
            "rule": str(self.rule),
            "schedule": str(self.schedule),
            "challengers": [[str(each.schedule), each.origin] for each in self.challengers],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Case":
        """What `to_json` wrote."""
        return cls(
            Budget.parse(values["budget"]),
            Rule.parse(values["rule"]),
            FilterSchedule.parse(values["schedule"]),
            tuple(Challenger(FilterSchedule.parse(text), origin) for text, origin in values["challengers"]),
        )


def store_cases(storage: Storage, cases: Sequence[Case]) -> None:
    """Fix the cases for the study's life, unless another supervisor was faster."""
    storage.set_once("confirm", "cases", [case.to_json() for case in cases])


def stored_cases(storage: Storage) -> list[Case] | None:
    """The cases fixed before; None while the search goes on."""
    values = storage.confirm.user_attrs.get("cases")
    return None if values is None else [Case.from_json(each) for each in values]


@dataclass(frozen=True)
class Exploration:
    """Cases judged on terms chosen after looking: their verdicts are `exploratory`.

    Attributes:
        confirm: The terms: margin, looks, confidence, number of challengers.
        cases: Who is judged against whom.
    """

    confirm: ConfirmConfig
    cases: tuple[Case, ...]


def store_exploration(storage: Storage, exploration: Exploration) -> None:
    """Add an exploration to those asked for before, unless it is one of them."""
    added = {
        "confirm": exploration.confirm.model_dump(mode="json"),
        "cases": [case.to_json() for case in exploration.cases],
    }
    storage.append("confirm", "explorations", added)


def stored_explorations(storage: Storage) -> list[Exploration]:
    """What was asked for after looking, in the order of asking."""
    return [
        Exploration(
            ConfirmConfig.model_validate(each["confirm"]), tuple(Case.from_json(case) for case in each["cases"])
        )
        for each in storage.confirm.user_attrs.get("explorations", [])
    ]


def scores(storage: Storage) -> dict[FilterSchedule, NDArray[np.float64]]:
    """Test accuracies, as `training.score` has them, of each schedule's runs in order, up to the first still missing.

    A run that diverged counts as accuracy 0: it classified nothing.
    """
    found: dict[FilterSchedule, dict[int, float]] = defaultdict(dict)
    for job in storage.trials("confirm", TrialState.COMPLETE):
        runs = found[FilterSchedule.parse(job.user_attrs["schedule"])]
        for index, run in enumerate(job.user_attrs["runs"], start=job.user_attrs["first"]):
            runs[index] = run.get("accuracy", 0.0)
    return {
        schedule: np.array([runs[index] for index in takewhile(runs.__contains__, count())])
        for schedule, runs in found.items()
    }


def correctness(storage: Storage) -> dict[FilterSchedule, NDArray[np.float64]]:
    """Per test image, the share of a schedule's runs that classified it correctly; shape `(n_images,)` each.

    Schedules of which every run diverged have none.
    """
    counts: dict[FilterSchedule, NDArray[np.int64]] = {}
    runs: dict[FilterSchedule, int] = defaultdict(int)
    for job in storage.trials("confirm", TrialState.COMPLETE):
        schedule = FilterSchedule.parse(job.user_attrs["schedule"])
        runs[schedule] += job.user_attrs["count"]
        if "correct" in job.user_attrs:
            counts[schedule] = counts.get(schedule, 0) + unpack_counts(job.user_attrs["correct"]).astype(np.int64)
    return {schedule: total / runs[schedule] for schedule, total in counts.items()}


def judge(case: Case, found: Scores, confirm: ConfirmConfig) -> Verdict:
    """What the scores so far decide about one case."""
    none = np.empty(0)
    plan = Plan(confirm.looks, confirm.confidence, len(case.challengers))
    challengers = {str(each.schedule): found.get(each.schedule, none) for each in case.challengers}
    return decide(found.get(case.schedule, none), challengers, confirm.margin, plan)


@dataclass(frozen=True)
class Standing:
    """What the runs so far say of one case.

    Attributes:
        case: The case.
        verdict: What they decide.
        rule_accuracy: Mean test accuracy of the rule's schedule; None before its first run.
        best: The challenger furthest ahead of the rule, or the rule's own schedule where none is.
        best_accuracy: Its mean test accuracy.
    """

    case: Case
    verdict: Verdict
    rule_accuracy: float | None
    best: FilterSchedule
    best_accuracy: float | None


def standings(storage: Storage, confirm: ConfirmConfig, cases: Sequence[Case] | None = None) -> list[Standing]:
    """Where every case stands; empty while the search goes on.

    Args:
        storage: The study's.
        confirm: The terms to judge by.
        cases: Those of the study unless others are given.
    """
    found = scores(storage)
    means = {schedule: float(values.mean()) for schedule, values in found.items() if len(values)}
    standing = []
    for case in (stored_cases(storage) or []) if cases is None else cases:
        verdict = judge(case, found, confirm)
        best = FilterSchedule.parse(verdict.best) if verdict.best else case.schedule
        standing.append(Standing(case, verdict, means.get(case.schedule), best, means.get(best)))
    return standing
