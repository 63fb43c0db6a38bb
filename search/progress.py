"""Where a study stands: counts of its trials and confirmation runs, and the best so far under each budget."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import TrialState

from search.cost import Budget
from search.study import Purpose, Storage, accuracy_of, costs_of, is_finished


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Attributes:
        phase: `search`, or `confirm` once every trial has ended.
        finished: Finished trials.
        trials: Trials in all.
        running: Jobs being carried out.
        failed: Trials that diverged, ran out of memory or were given up.
        pruned: Trials stopped early.
        confirmed: Confirmation runs carried out.
        confirmations: Confirmation runs queued so far.
        given_up: Confirmation jobs that crashed too often; cases that need them stay undecided.
    """

    phase: Purpose
    finished: int
    trials: int
    running: int
    failed: int
    pruned: int
    confirmed: int
    confirmations: int
    given_up: int


@dataclass(frozen=True)
class Best:
    """The trial with the highest validation accuracy within a budget: a description of the search, not a finding."""

    budget: Budget
    schedule: str
    accuracy: float


def progress(storage: Storage) -> Progress:
    """The study's counts."""
    trials = [trial for trial in storage.trials("search") if trial.user_attrs.get("reason") != "refused"]
    jobs = storage.trials("confirm")
    states = Counter(trial.state for trial in trials)
    ended = sum(trial.state.is_finished() for trial in trials)
    return Progress(
        phase="confirm" if ended == len(trials) else "search",
        finished=sum(map(is_finished, trials)),
        trials=len(trials),
        running=states[TrialState.RUNNING] + sum(job.state is TrialState.RUNNING for job in jobs),
        failed=states[TrialState.FAIL],
        pruned=states[TrialState.PRUNED],
        confirmed=sum(job.user_attrs["count"] for job in jobs if job.state is TrialState.COMPLETE),
        confirmations=sum(job.user_attrs["count"] for job in jobs),
        given_up=sum(job.state is TrialState.FAIL for job in jobs),
    )


def best_so_far(storage: Storage, budgets: tuple[Budget, ...]) -> list[Best]:
    """For each budget that some complete trial meets, the trial with the highest validation accuracy."""
    found = []
    complete = storage.trials("search", TrialState.COMPLETE)
    for budget in budgets:
        within = [trial for trial in complete if budget.admits(costs_of(trial))]
        if within:
            best = max(within, key=accuracy_of)
            found.append(Best(budget, best.user_attrs["schedule"], accuracy_of(best)))
    return found


def to_json(counts: Progress, best: Sequence[Best]) -> dict[str, Any]:
    """Both as plain values."""
    return asdict(counts) | {
        "best": [
            {
                "cost": each.budget.cost,
                "limit": each.budget.limit,
                "schedule": each.schedule,
                "accuracy": each.accuracy,
            }
            for each in best
        ]
    }
