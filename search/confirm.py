"""Confirmation: which schedules are trained afresh, when, and what their scores decide.

The cases are fixed once, when the search has ended; jobs are queued look by look. Only here is the test split scored.
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
from search.errors import ConfigError
from search.plan import StudyPlan
from search.rules import Fit, Rule
from search.schedule import FilterSchedule
from search.study import Storage, enqueue_confirmation, unpack_counts
from search.surrogate import Surrogate, recommend
from search.verdict import Plan, Verdict, decide

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
    """Fix the cases for the study's life."""
    storage.confirm.set_user_attr("cases", [case.to_json() for case in cases])


def stored_cases(storage: Storage) -> list[Case] | None:
    """The cases fixed before; None while the search goes on."""
    values = storage.confirm.user_attrs.get("cases")
    return None if values is None else [Case.from_json(each) for each in values]


def fit_surrogate(storage: Storage, seed: int) -> Surrogate | None:
    """The surrogate over all runs of complete trials; None while they are too few."""
    filters: list[tuple[int, ...]] = []
    accuracies: list[float] = []
    for trial in storage.trials("search", TrialState.COMPLETE):
        for run in trial.user_attrs["runs"]:
            filters.append(FilterSchedule.parse(trial.user_attrs["schedule"]).filters)
            accuracies.append(run["accuracy"])
    try:
        return Surrogate.fit(np.array(filters, np.int64), np.array(accuracies), seed)
    except ValueError:
        return None


def choose_cases(plan: StudyPlan, surrogate: Surrogate | None) -> list[Case]:
    """Every judged rule under every budget with its challengers, in the order of the configuration.

    Half of the places go to the surrogate's best schedules, visited or not, the others to the other rules it ranks
    best; places that one side leaves free go to the other. Without a surrogate the rules come in their order.
    """
    cases = []
    for number, fitted in enumerate(plan.judged):
        others = [
            Challenger(other.schedule, str(other.rule))
            for other in plan.anchors
            if other.budget == fitted.budget and other.schedule != fitted.schedule
        ]
        if surrogate is not None:
            rng = np.random.default_rng([plan.config.seed, number])
            others = _ranked(plan, surrogate, fitted, others, rng)
        if not others:
            msg = (
                f"rule {fitted.rule} has no challenger within {fitted.budget}; name other rules in rules.compared or "
                "raise search.trials"
            )
            raise ConfigError(msg)
        cases.append(
            Case(fitted.budget, fitted.rule, fitted.schedule, tuple(others[: plan.config.confirm.challengers]))
        )
    return cases


def _ranked(
    plan: StudyPlan, surrogate: Surrogate, fitted: Fit, others: Sequence[Challenger], rng: np.random.Generator
) -> list[Challenger]:
    """The surrogate's best and the other rules by its ranking, one of each in turn, best first."""
    mean, _ = surrogate.predict(
        np.array([each.schedule.filters for each in others], np.int64).reshape(-1, len(plan.space.ranges))
    )
    rules = [others[i] for i in np.argsort(-mean, kind="stable")]
    pool = plan.space.within(fitted.budget, plan.cost_model, rng)
    places = plan.config.confirm.challengers
    taken = [fitted.schedule, *(each.schedule for each in rules[: places // 2])]
    found = [Challenger(schedule, "surrogate") for schedule in recommend(surrogate, pool, places, taken)]
    half = places - min(places // 2, len(rules))
    return found[:half] + rules[: places // 2] + found[half:] + rules[places // 2 :]


def scores(storage: Storage) -> dict[FilterSchedule, NDArray[np.float64]]:
    """Test accuracies of each schedule in the order of its runs, up to the first run still missing.

    A run without a score counts as accuracy 0: it classified nothing.
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
    """Per test image, the share of a schedule's runs that classified it correctly; shape `(n_images,)` each."""
    counts: dict[FilterSchedule, NDArray[np.int64]] = {}
    runs: dict[FilterSchedule, int] = defaultdict(int)
    for job in storage.trials("confirm", TrialState.COMPLETE):
        if "correct" in job.user_attrs:
            schedule = FilterSchedule.parse(job.user_attrs["schedule"])
            counts[schedule] = counts.get(schedule, 0) + unpack_counts(job.user_attrs["correct"]).astype(np.int64)
            runs[schedule] += job.user_attrs["count"]
    return {schedule: total / runs[schedule] for schedule, total in counts.items()}


def judge(case: Case, found: Scores, confirm: ConfirmConfig) -> Verdict:
    """What the scores so far decide about one case."""
    none = np.empty(0)
    plan = Plan(confirm.looks, confirm.confidence, len(case.challengers))
    challengers = {str(each.schedule): found.get(each.schedule, none) for each in case.challengers}
    return decide(found.get(case.schedule, none), challengers, confirm.margin, plan)


def runs_needed(cases: Sequence[Case], found: Scores, confirm: ConfirmConfig) -> dict[FilterSchedule, int]:
    """Runs each schedule needs in all for the next look of every case still open; empty when all are closed."""
    needed: dict[FilterSchedule, int] = {}
    for case in cases:
        verdict = judge(case, found, confirm)
        if verdict.next_look is None:
            continue
        for schedule in (case.schedule, *map(FilterSchedule.parse, verdict.unsettled)):
            if len(found.get(schedule, ())) < verdict.next_look:
                needed[schedule] = max(needed.get(schedule, 0), verdict.next_look)
    return needed


def enqueue_next(storage: Storage, cases: Sequence[Case], confirm: ConfirmConfig, most_per_job: int) -> int:
    """Queue the runs of the next look that are not queued yet.

    Returns:
        How many jobs were queued; 0 when every case is closed, or waits for jobs that are queued already.
    """
    queued: dict[FilterSchedule, int] = defaultdict(int)
    for job in storage.trials("confirm"):
        schedule = FilterSchedule.parse(job.user_attrs["schedule"])
        queued[schedule] = max(queued[schedule], job.user_attrs["first"] + job.user_attrs["count"])
    jobs = 0
    for schedule, runs in runs_needed(cases, scores(storage), confirm).items():
        for first in range(queued[schedule], runs, most_per_job):
            enqueue_confirmation(storage, schedule, first, min(most_per_job, runs - first))
            jobs += 1
    return jobs
