"""Where a study stands: counts of its trials and confirmation runs, and the best so far under each budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import TrialState

from search.cost import Budget
from search.study import Purpose, Storage, accuracy_of, costs_of, is_finished, is_given_up, jobs


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Attributes:
        phase: `search`, or `confirm` once every trial has ended.
        finished: Finished trials.
        trials: Trials in all.
        running: Jobs being carried out.
        failed: Finished trials that diverged or ran out of memory.
        confirmed: Confirmation runs carried out.
        confirmations: Confirmation runs queued so far.
        given_up: Trials and confirmation jobs that crashed too often; a resume tries them again.
    """

    phase: Purpose
    finished: int
    trials: int
    running: int
    failed: int
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
    trials, confirming = jobs(storage, "search"), jobs(storage, "confirm")
    return Progress(
        phase="confirm" if all(trial.state.is_finished() for trial in trials) else "search",
        finished=sum(map(is_finished, trials)),
        trials=len(trials),
        running=sum(job.state is TrialState.RUNNING for job in trials + confirming),
        failed=sum(is_finished(trial) and trial.state is TrialState.FAIL for trial in trials),
        confirmed=sum(job.user_attrs["count"] for job in confirming if job.state is TrialState.COMPLETE),
        confirmations=sum(job.user_attrs["count"] for job in confirming),
        given_up=sum(map(is_given_up, trials + confirming)),
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
