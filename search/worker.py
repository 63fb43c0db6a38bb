"""A worker: claims queued jobs, trains, records. Stateless; whatever it leaves unfinished returns to the queue.

Owns the life of one trial: ask, price, train, score, tell.
"""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import Trial, TrialState

from search import database, fusing
from search.cost import Budget, Costs
from search.device import choose_device, device_name
from search.evaluate import Evaluate, Failed, FailureReason, Fidelity, Run, Scored
from search.lifeline import AFTER_FAILURE, Stopping
from search.machine import MACHINE, Machine, note
from search.memorylimit import DID_NOT_FIT, fits, memory_limit
from search.objective import excess
from search.plan import StudyPlan
from search.queues import Probe
from search.runrecord import pack_counts, record
from search.samplers import make_sampler
from search.schedule import FilterSchedule
from search.splits import Splits
from search.study import PURPOSES, Purpose, Storage, load
from search.table import TableEvaluator
from search.training import TrainingEvaluator
from search.trialstore import LostTrialError

_IDLE_SECONDS, _AFTER_FAILURE_SECONDS = 0.05, 0.5


class CarriedOut(IntEnum):
    """What became of the next job."""

    NOTHING = 0
    A_JOB = 1
    FAILED = 2


def make_evaluator(plan: StudyPlan, storage: Storage | None = None) -> Evaluate:
    """What trains this study's candidates, or looks them up; of a storage it heeds what was measured for the study."""
    if isinstance(plan.source, TableEvaluator):
        return plan.source
    config = plan.config
    splits = Splits(plan.data, config.data)
    evaluate = TrainingEvaluator(
        config.network, config.training, plan.data, splits, choose_device(config.compute.device)
    )
    if storage:
        evaluate.together = fusing.together(plan, storage)
    return evaluate


def open_study(plan: StudyPlan, folder: Path, supervisor: str | None = None) -> Storage:
    """The study in `folder`, ready to propose candidates; for a worker of this supervisor."""
    config = plan.config
    sampler = make_sampler(config.search, plan.space, plan.cost_model, config.seed)
    return load(folder, config.name, sampler, supervisor, patient=True)


def measure(plan: StudyPlan, folder: Path) -> None:
    """Measure what trains together, unless this study has been; in a process of its own, as memory may not suffice."""
    torch.set_num_threads(1)
    fusing.decide(plan, open_study(plan, folder), make_evaluator(plan))


def work(plan: StudyPlan, folder: Path, supervisor: str, stopping: Stopping) -> None:
    """Carry out the jobs of the study in `folder`, and wait for more, until asked to stop; with one thread.

    Raises:
        StorageError: The storage refuses, as a full disk does.
    """
    torch.set_num_threads(1)
    with database.guarded(folder):
        storage = open_study(plan, folder, supervisor)
        evaluate = make_evaluator(plan, storage)
        here = note(storage, Machine.here(device_name(plan.config.compute.device)))
        while not stopping.asked:
            carried_out = carry_out_next(plan, evaluate, storage, here)
            if carried_out is CarriedOut.FAILED:
                # A broken GPU context fails at everything that follows; and others are to try the job first.
                time.sleep(_AFTER_FAILURE_SECONDS)
                sys.exit(AFTER_FAILURE)
            if not carried_out:
                time.sleep(_IDLE_SECONDS)


def carry_out_next(plan: StudyPlan, evaluate: Evaluate, storage: Storage, machine: str | None = None) -> CarriedOut:
    """Carry out one waiting job, trials before confirmation before probes; nothing where none waits.

    The job is marked with the machine it runs on, if that is given.

    Whatever a job raises puts it back into the queue, at most `study.MOST_ATTEMPTS` times.
    """
    carry_out: dict[Purpose, Callable[[StudyPlan, Evaluate, Storage, Trial], None]] = {
        "search": _try_candidate,
        "confirm": _confirm,
        "probe": _probe,
    }
    for purpose in PURPOSES:
        if trial := storage.claim(purpose):
            break
    else:
        return CarriedOut.NOTHING
    if machine is not None:
        trial.set_user_attr(MACHINE, machine)
    try:
        carry_out[purpose](plan, evaluate, storage, trial)
    except LostTrialError as error:
        sys.stderr.write(f"{error}\n")
    except Exception as error:  # neither a user's network nor a library may end the whole study
        storage.release(purpose, storage.owner.__eq__, "".join(traceback.format_exception(error)))
        return CarriedOut.FAILED
    return CarriedOut.A_JOB


def _try_candidate(plan: StudyPlan, evaluate: Evaluate, storage: Storage, trial: Trial) -> None:
    config, space = plan.config, plan.space
    budget = Budget.parse(trial.user_attrs["budget"])
    schedule = FilterSchedule(
        tuple(
            trial.suggest_int(name, stage.low, stage.high, log=stage.scale == "log") * space.multiple
            for name, stage in space.dimensions()
        )
    )
    costs = plan.cost_model.costs(schedule)
    if "schedule" not in trial.user_attrs:  # else it is tried again, and a constraint can be set once only
        trial.set_constraint(str(budget), excess(costs, budget))
        trial.set_user_attr("costs", asdict(costs))
        trial.set_user_attr("schedule", str(schedule))
        storage.write(trial)  # so that it is tried as it is if this process dies
    limit = memory_limit(*storage.studies)
    if not fits(costs, limit):
        detail = f"{schedule} was not trained: it needs {costs.memory} bytes, and a network of {limit} did not fit"
        trial.set_user_attr("runs", [])
        _fail(storage.search, trial, "oom", detail, costs)
        return
    count = config.search.seeds_per_trial
    seeds = plan.seeds("search", schedule, trial.user_attrs["proposal"] * count, count)
    runs = evaluate(schedule, seeds, Fidelity.brief(config.training), "validation")
    trial.set_user_attr("runs", [record(run) for run in runs])
    failures = [run for run in runs if isinstance(run, Failed)]
    if failures:
        _fail(storage.search, trial, failures[0].reason, failures[0].detail, costs)
    else:
        accuracy = float(np.mean([run.accuracy for run in runs if isinstance(run, Scored)]))
        storage.search.tell(trial, plan.objective.values(accuracy, costs))


def _confirm(plan: StudyPlan, evaluate: Evaluate, storage: Storage, job: Trial) -> None:
    config = plan.config
    schedule = FilterSchedule.parse(job.user_attrs["schedule"])
    seeds = plan.seeds("confirm", schedule, job.user_attrs["first"], job.user_attrs["count"])
    runs = evaluate(schedule, seeds, Fidelity.brief(config.training), "test")
    correct = [run.correct for run in runs if isinstance(run, Scored) and run.correct is not None]
    if correct:
        job.set_user_attr("correct", pack_counts(np.sum(correct, axis=0, dtype=np.uint16)))
    _tell(storage.confirm, job, runs, plan.cost_model.costs(schedule))


def _probe(plan: StudyPlan, evaluate: Evaluate, storage: Storage, job: Trial) -> None:
    probe = Probe.of(job)
    seeds = plan.seeds("probe", probe.schedule, probe.first, probe.count)
    runs = evaluate(probe.schedule, seeds, probe.fidelity, probe.split)
    _tell(storage.probe, job, runs, plan.cost_model.costs(probe.schedule))


def _fail(study: optuna.Study, job: Trial, reason: FailureReason, detail: str, costs: Costs) -> None:
    """End a job without a score; one that ran out of memory bounds what is tried afterwards."""
    job.set_user_attr("reason", reason)
    job.set_user_attr("detail", detail)
    if reason == "oom":
        job.set_user_attr(DID_NOT_FIT, costs.memory)
    study.tell(job, state=TrialState.FAIL)


def _tell(study: optuna.Study, job: Trial, runs: list[Run], costs: Costs) -> None:
    for run in runs:
        if isinstance(run, Failed) and run.reason == "oom":  # no accuracy: a lack of memory is no score
            return _fail(study, job, "oom", run.detail, costs)
    job.set_user_attr("runs", [record(run) for run in runs])
    # A run that diverged classified nothing; leaving it out would flatter schedules that diverge.
    study.tell(job, float(np.mean([run.accuracy if isinstance(run, Scored) else 0.0 for run in runs])))
