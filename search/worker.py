"""A worker: claims queued jobs, trains, records. Stateless; whatever it leaves unfinished returns to the queue.

Owns the life of one trial: ask, price, train, score, tell.
"""

import os
import signal
import threading
import traceback
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import Trial, TrialState

from search import configfile
from search.cost import Budget, Costs
from search.data import Splits
from search.evaluate import Evaluate, Failed, Fidelity, OnEpoch, Run, Scored
from search.launch import end_with_coordinator
from search.objective import excess
from search.plan import StudyPlan, make_plan
from search.samplers import make_sampler
from search.schedule import FilterSchedule
from search.study import Proposal, Purpose, Storage, enqueue_trials, load, pack_counts, record, run_seeds
from search.training import TrainingEvaluator, choose_device

_IDLE_SECONDS = 0.05
_MOST_REFUSALS = 20


def make_evaluator(plan: StudyPlan) -> Evaluate:
    """What trains this study's candidates."""
    config = plan.config
    splits = Splits(plan.data.strata, config.data)
    return TrainingEvaluator(config.network, config.training, plan.data, splits, choose_device(config.compute.device))


def open_study(plan: StudyPlan, folder: Path) -> Storage:
    """The study in `folder`, ready to propose candidates."""
    config = plan.config
    sampler = make_sampler(config.search, plan.space, plan.cost_model, config.seed)
    pruner = optuna.pruners.MedianPruner() if config.search.pruner == "median" else optuna.pruners.NopPruner()
    return load(folder, config.name, sampler, pruner)


def work_in(folder: Path, *, leashed: bool) -> None:
    """Be a worker process of the study in `folder` until SIGTERM, which is heeded after the job at hand.

    Args:
        folder: The study folder.
        leashed: End at once when standard input closes, which is when the coordinator that started this has gone.
    """
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator's business
    if leashed:
        end_with_coordinator()
    torch.set_num_threads(1)
    plan = make_plan(configfile.read(folder / "config.yaml"))
    evaluate, storage = make_evaluator(plan), open_study(plan, folder)
    while not stopping.is_set():
        if not carry_out_next(plan, evaluate, storage):
            stopping.wait(_IDLE_SECONDS)


def carry_out_next(plan: StudyPlan, evaluate: Evaluate, storage: Storage) -> bool:
    """Carry out one waiting job, trials before confirmation; False when nothing waits.

    Whatever a job raises puts it back into the queue, at most `study.MOST_ATTEMPTS` times.
    """
    purpose: Purpose = "search"
    trial = storage.claim(purpose)
    if trial is None:
        purpose = "confirm"
        trial = storage.claim(purpose)
    if trial is None:
        return False
    try:
        (_try_candidate if purpose == "search" else _confirm)(plan, evaluate, storage, trial)
    except Exception as error:  # neither a user's network nor a library may end the whole study
        storage.release(purpose, os.getpid(), "".join(traceback.format_exception(error)))
    return True


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
    if not any(each.admits(costs) for each in config.budgets):
        _refuse(plan, storage, trial, budget)
        return
    if "schedule" not in trial.user_attrs:  # else it is tried again, and a constraint can be set once only
        trial.set_constraint(str(budget), excess(costs, budget))
        trial.set_user_attr("costs", asdict(costs))
        trial.set_user_attr("schedule", str(schedule))
    count = config.search.seeds_per_trial
    runs = evaluate(
        schedule,
        run_seeds(config.seed, "search", schedule, trial.number * count, count),
        Fidelity(config.training.epochs),
        "validation",
        _pruning(plan, trial, costs),
    )
    trial.set_user_attr("runs", [record(run) for run in runs])
    _tell(plan, storage, trial, runs, costs)


def _pruning(plan: StudyPlan, trial: Trial, costs: Costs) -> OnEpoch | None:
    if plan.config.search.pruner == "none":
        return None

    def on_epoch(epoch: int, accuracy: float) -> bool:
        trial.report(plan.objective.values(accuracy, costs)[0], epoch)
        return trial.should_prune()

    return on_epoch


def _tell(plan: StudyPlan, storage: Storage, trial: Trial, runs: list[Run], costs: Costs) -> None:
    failures = [run for run in runs if isinstance(run, Failed)]
    if failures:
        trial.set_user_attr("reason", failures[0].reason)
        trial.set_user_attr("detail", failures[0].detail)
        storage.search.tell(trial, state=TrialState.FAIL)
        return
    scored = [run for run in runs if isinstance(run, Scored)]
    if scored[0].epochs < plan.config.training.epochs:
        storage.search.tell(trial, state=TrialState.PRUNED)
        return
    accuracy = float(np.mean([run.accuracy for run in scored]))
    storage.search.tell(trial, plan.objective.values(accuracy, costs))


def _refuse(plan: StudyPlan, storage: Storage, trial: Trial, budget: Budget) -> None:
    """End a proposal that breaks every budget before it is trained, and queue another in its place.

    A sampler that keeps proposing what cannot be afforded is answered by a random shape that fits.
    """
    refusals = trial.user_attrs.get("refusals", 0) + 1
    trial.set_user_attr("reason", "refused")
    storage.search.tell(trial, state=TrialState.FAIL)
    params: dict[str, int] = {}
    if refusals >= _MOST_REFUSALS:
        rng = np.random.default_rng([plan.config.seed, trial.number])
        params = plan.space.params(plan.space.propose(budget, plan.cost_model, rng))
    origin = trial.user_attrs["origin"]
    enqueue_trials(storage, [Proposal(origin, budget, params, refusals)])


def _confirm(plan: StudyPlan, evaluate: Evaluate, storage: Storage, job: Trial) -> None:
    config = plan.config
    schedule = FilterSchedule.parse(job.user_attrs["schedule"])
    seeds = run_seeds(config.seed, "confirm", schedule, job.user_attrs["first"], job.user_attrs["count"])
    runs = evaluate(schedule, seeds, Fidelity(config.training.epochs), "test")
    scored = [run for run in runs if isinstance(run, Scored)]
    job.set_user_attr("runs", [record(run) for run in runs])
    if scored:
        job.set_user_attr("correct", pack_counts(np.sum([run.correct for run in scored], axis=0, dtype=np.uint16)))
    # A run that diverged classified nothing; leaving it out would flatter schedules that diverge.
    storage.confirm.tell(job, float(np.mean([run.accuracy if isinstance(run, Scored) else 0.0 for run in runs])))
