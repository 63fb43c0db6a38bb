"""Confirmation: which schedules are trained afresh, and when.

The cases are fixed once, when the search has ended; jobs are queued look by look. Only here is the test split scored.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import TrialState

from search.cases import Case, Challenger, Scores, judge, scores
from search.config import ConfirmConfig
from search.memorylimit import fits, fitting
from search.plan import StudyPlan
from search.queues import confirmation
from search.rules import Fit
from search.schedule import FilterSchedule
from search.study import Queued, Storage
from search.surrogate import Surrogate, recommend
from search.verdict import next_case

_MOST_RUNS_PER_JOB = 16
_MACS_PER_JOB = 10**11  # about a minute of one core at the rate of small networks, 2 * 10^9 a second


def fit_surrogate(storage: Storage, seed: int) -> Surrogate | None:
    """The surrogate over all runs of complete trials; None while they are too few.

    A schedule's runs with equal seeds are one run: a table's columns come round again.
    """
    found = {
        (FilterSchedule.parse(trial.user_attrs["schedule"]).filters, run["seed"]): run["accuracy"]
        for trial in storage.trials("search", TrialState.COMPLETE)
        for run in trial.user_attrs["runs"]
    }
    filters = np.array([schedule for schedule, _ in found], np.int64)
    try:
        return Surrogate.fit(filters, np.array(list(found.values())), seed)
    except ValueError:
        return None


def choose_cases(plan: StudyPlan, surrogate: Surrogate | None, limit: int | None = None) -> list[Case]:
    """Every judged rule under every budget with its challengers, in the order of the configuration.

    Half of the places go to the surrogate's best schedules, visited or not, the others to the other rules it ranks
    best; places that one side leaves free go to the other. Without a surrogate the rules come in their order. Where
    there is neither, random schedules within the budget challenge.

    Args:
        plan: The study.
        surrogate: What the search's runs say of every schedule; None without enough of them.
        limit: Predicted memory in bytes that did not fit (see `memorylimit`); only what needs less challenges.
    """
    cases = []
    for number, fitted in enumerate(plan.judged):
        others = [
            Challenger(other.schedule, str(other.rule))
            for other in plan.anchors
            if other.budget == fitted.budget
            and other.schedule != fitted.schedule
            and fits(plan.cost_model.costs(other.schedule), limit)
        ]
        rng = np.random.default_rng([plan.config.seed, number])
        if surrogate is not None:
            others = _ranked(plan, surrogate, fitted, others, limit, rng)
        challengers = (others or _at_random(plan, fitted, limit, rng))[: plan.config.confirm.challengers]
        cases.append(Case(fitted.budget, fitted.rule, fitted.schedule, tuple(challengers)))
    return cases


def _at_random(plan: StudyPlan, fitted: Fit, limit: int | None, rng: np.random.Generator) -> list[Challenger]:
    pool = fitting(plan.others(fitted.budget, [fitted.schedule], rng), plan.cost_model, limit)
    places = min(plan.config.confirm.challengers, len(pool))
    chosen = rng.choice(pool, places, replace=False)
    return [Challenger(FilterSchedule(tuple(map(int, filters))), "random") for filters in chosen]


def _ranked(
    plan: StudyPlan,
    surrogate: Surrogate,
    fitted: Fit,
    others: Sequence[Challenger],
    limit: int | None,
    rng: np.random.Generator,
) -> list[Challenger]:
    """Half of the places for the surrogate's best, half for the rules it ranks best, then whoever is left."""
    mean, _ = surrogate.predict(
        np.array([each.schedule.filters for each in others], np.int64).reshape(-1, len(plan.space.ranges))
    )
    rules = [others[i] for i in np.argsort(-mean, kind="stable")]
    pool = fitting(plan.space.within(fitted.budget, plan.cost_model, rng), plan.cost_model, limit)
    places = plan.config.confirm.challengers
    taken = [fitted.schedule, *(each.schedule for each in rules[: places // 2])]
    found = [Challenger(schedule, "surrogate") for schedule in recommend(surrogate, pool, places, taken)]
    half = places - min(places // 2, len(rules))
    ordered = found[:half] + rules[: places // 2] + found[half:] + rules[places // 2 :]
    return list({each.schedule: each for each in reversed(ordered)}.values())[::-1]  # of equals the first


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


def enqueue_next(storage: Storage, cases: Sequence[Case], plan: StudyPlan) -> int:
    """Queue the runs of the next look that are not queued yet: of all open cases, or of one where runs are rationed.

    Returns:
        How many jobs there were, whoever queued them; 0 when every case is closed or waits for jobs that were queued
        already, and when the allowance is spent.
    """
    trials = storage.trials("confirm")
    queued: dict[FilterSchedule, int] = defaultdict(int)
    for job in trials:
        schedule = FilterSchedule.parse(job.user_attrs["schedule"])
        queued[schedule] = max(queued[schedule], job.user_attrs["first"] + job.user_attrs["count"])
    jobs = _next_jobs(cases, scores(storage), queued, plan)
    storage.queue("confirm", jobs, len(trials))
    return len(jobs)


def _next_jobs(
    cases: Sequence[Case], found: Scores, queued: Mapping[FilterSchedule, int], plan: StudyPlan
) -> list[Queued]:
    confirm = plan.config.confirm
    if confirm.allowance is None:
        return _jobs(runs_needed(cases, found, confirm), queued, plan)
    left, waiting = confirm.allowance - sum(queued.values()), list(cases)
    while (turn := next_case([judge(case, found, confirm) for case in waiting], left)) is not None:
        if jobs := _jobs(runs_needed([waiting.pop(turn)], found, confirm), queued, plan):
            return jobs
    return []


def _jobs(needed: Mapping[FilterSchedule, int], queued: Mapping[FilterSchedule, int], plan: StudyPlan) -> list[Queued]:
    jobs = []
    for schedule, runs in needed.items():
        per_job = runs_per_job(plan, schedule)
        for first in range(queued.get(schedule, 0), runs, per_job):
            jobs.append(confirmation(str(schedule), first, min(per_job, runs - first)))
    return jobs


def runs_per_job(plan: StudyPlan, schedule: FilterSchedule) -> int:
    """Runs of one job: enough to train in one pass, few enough that an interruption loses little.

    From the work and not from the clock, so that every launch of a study trains the same runs in one pass: results
    are the same bit for bit only so.
    """
    macs = plan.cost_model.costs(schedule).macs
    if macs is None or plan.config.table is not None:
        return _MOST_RUNS_PER_JOB
    images = round(plan.config.training.share * len(plan.data.labels))
    macs *= 3 * plan.config.training.epochs * images  # forward, and backward at twice its cost
    return max(1, min(_MOST_RUNS_PER_JOB, _MACS_PER_JOB // macs))
