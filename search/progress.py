"""Where a study stands: counts of its trials and confirmation runs, and the best so far under each budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.cases import Standing, standings
from search.config import StudyConfig
from search.cost import Budget
from search.folder import is_running, json_text, resume_command
from search.queues import jobs
from search.study import (
    PURPOSES,
    Purpose,
    Storage,
    accuracy_of,
    costs_of,
    host_of,
    is_finished,
    is_given_up,
    supervisor_of,
)

_DONE = "done"
_ENDS, _LEAST_GAPS = 32, 3  # the last ends a pace is told from, and the fewest gaps between them


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Attributes:
        phase: `search`, `confirm` once every trial has ended, `probe` once the first probe is queued.
        done: Whether it ran to its end and nothing was queued since.
        finished: Finished trials.
        trials: Trials in all.
        running: Jobs being carried out, or left by a supervisor that has gone and put back by none yet.
        held_on: The hosts of the supervisors that hold those, one each.
        failed: Finished trials that diverged or ran out of memory.
        pruned: Finished trials that were stopped early.
        confirmed: Confirmation runs carried out.
        confirmations: Confirmation runs queued so far.
        probed: Probing runs carried out.
        probes: Probing runs queued.
        given_up: Jobs that crashed too often; a resume tries them again.
        out_of_memory: Confirmation jobs and probes that did not fit in memory; they are not tried again.
        first_crash: How the first of those given up last ended, a line; None where none was.
        seconds_left: Until what is queued is done, at the pace so far; None where nothing runs or no pace is known.
    """

    phase: Purpose
    done: bool
    finished: int
    trials: int
    running: int
    held_on: tuple[str, ...]
    failed: int
    pruned: int
    confirmed: int
    confirmations: int
    probed: int
    probes: int
    given_up: int
    out_of_memory: int
    first_crash: str | None
    seconds_left: float | None


@dataclass(frozen=True)
class Best:
    """The trial with the highest validation accuracy within a budget: a description of the search, not a finding."""

    budget: Budget
    schedule: str
    accuracy: float


def progress(storage: Storage) -> Progress:
    """The study's counts."""
    trials, confirming, probing = (jobs(storage, purpose) for purpose in PURPOSES)
    searched = all(trial.state.is_finished() for trial in trials)
    given_up = [job for job in trials + confirming + probing if is_given_up(job)]
    running = [job for job in trials + confirming + probing if job.state is TrialState.RUNNING]
    holders = {supervisor_of(job.user_attrs.get("owner", "")) for job in running}
    phase: Purpose = "probe" if probing else "confirm" if searched else "search"
    return Progress(
        phase=phase,
        done=storage.search.user_attrs.get(_DONE, False)
        and all(job.state.is_finished() for job in trials + confirming + probing),
        finished=sum(map(is_finished, trials)),
        trials=len(trials),
        running=len(running),
        held_on=tuple(sorted(host_of(supervisor) for supervisor in holders)),
        failed=sum(is_finished(trial) and trial.state is TrialState.FAIL for trial in trials),
        pruned=sum(trial.state is TrialState.PRUNED for trial in trials),
        confirmed=_runs(confirming, TrialState.COMPLETE),
        confirmations=_runs(confirming, *TrialState),
        probed=_runs(probing, TrialState.COMPLETE),
        probes=_runs(probing, *TrialState),
        given_up=len(given_up),
        out_of_memory=sum(job.user_attrs.get("reason") == "oom" for job in confirming + probing),
        first_crash=_told_by(given_up[0].user_attrs["detail"]) if given_up else None,
        seconds_left=_seconds_left({"search": trials, "confirm": confirming, "probe": probing}[phase]),
    )


def _seconds_left(found: Sequence[FrozenTrial]) -> float | None:
    """The jobs still to end times the usual time between two ends.

    Of the last ends only, since schedules differ in size and workers come and go; a gap ten times the median is a
    study that stood still, not its pace. It misleads while the first jobs run and where the last ones are the longest.
    """
    ends = sorted(job.datetime_complete for job in found if job.datetime_complete)[-_ENDS:]
    gaps = [(after - before).total_seconds() for before, after in pairwise(ends)]
    running = any(job.state is TrialState.RUNNING for job in found)
    if not running or len(gaps) < _LEAST_GAPS:
        return None
    usual = [gap for gap in gaps if gap <= 10 * max(median(gaps), 0.01)]
    return fmean(usual) * sum(not job.state.is_finished() for job in found)


def _told_by(detail: str) -> str:
    """The line of a failure that says what it was: the last of a traceback, else the first."""
    lines = detail.strip().splitlines() or [""]
    return lines[-1 if "Traceback" in detail else 0]


def _runs(found: Sequence[FrozenTrial], *states: TrialState) -> int:
    return sum(job.user_attrs["count"] for job in found if job.state in states)


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


def mark_done(storage: Storage) -> None:
    """Note that the study ran to its end."""
    storage.search.set_user_attr(_DONE, True)


def counts_json(storage: Storage, config: StudyConfig) -> str:
    """The study's counts, its best so far and the verdicts there are, as `--json` prints them."""
    found = to_json(progress(storage), best_so_far(storage, config.budgets))
    return json_text(found | {"verdicts": [_standing(each) for each in standings(storage, config.confirm)]})


def _standing(found: Standing) -> dict[str, Any]:
    regret = found.verdict.regret
    return {
        "cost": found.case.budget.cost,
        "limit": found.case.budget.limit,
        "rule": str(found.case.rule),
        "rule_schedule": str(found.case.schedule),
        "best_schedule": str(found.best),
        "rule_accuracy": found.rule_accuracy,
        "best_accuracy": found.best_accuracy,
        "split": "test",
        "runs": found.verdict.runs,
        "regret": {"mean": regret.mean, "low": regret.low, "high": regret.high},
        "verdict": found.verdict.outcome,
    }


def not_confirmed(storage: Storage, folder: Path) -> str:
    """That there is no verdict yet, where the study stands and how to go on."""
    counts = progress(storage)
    going = "it is being run: wait for it" if is_running(folder) else f"go on with `{resume_command(folder)}`"
    return (
        f"nothing is confirmed yet in {folder}, with {counts.finished} of {counts.trials} trials and "
        f"{counts.confirmed} confirmation runs done; {going}"
    )


def to_json(counts: Progress, best: Sequence[Best]) -> dict[str, Any]:
    """Both as plain values; the best are the luckiest of the search's own scores, not what was confirmed."""
    return asdict(counts) | {
        "best": [
            {
                "cost": each.budget.cost,
                "limit": each.budget.limit,
                "schedule": each.schedule,
                "accuracy": each.accuracy,
                "split": "validation",
            }
            for each in best
        ]
    }
