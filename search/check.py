"""What a study would do, before it trains anything: its runs, its likely time, what its test split can resolve."""

import os
import time
from dataclasses import dataclass

import numpy as np
import torch

from search.config import StudyConfig
from search.data import ImageData, Splits
from search.evaluate import Fidelity
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.training import TrainingEvaluator, choose_device
from search.verdict import resolvable_margin

_PROBE_BATCHES = 4
_PROBE_RUNS = 8
_START_SECONDS = 8.0  # importing torch in a coordinator and its workers, the report at the end; measured on two cores


@dataclass(frozen=True)
class Forecast:
    """What a study will likely take, and what it can decide.

    Attributes:
        search_runs: Training runs of the search.
        least_confirmations: Confirmation runs when every case is decided at the first look.
        most_confirmations: Confirmation runs when every case needs the last look.
        least_seconds: Wall time for the former.
        most_seconds: Wall time for the latter.
        resolvable_margin: The margin the test split can be expected to resolve, a fraction.
    """

    search_runs: int
    least_confirmations: int
    most_confirmations: int
    least_seconds: float
    most_seconds: float
    resolvable_margin: float


def count_workers(config: StudyConfig) -> int:
    """Local processes: as configured, else one per usable core on a CPU and one on a GPU."""
    if config.compute.workers != "auto":
        return config.compute.workers
    if choose_device(config.compute.device).type == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forecast(plan: StudyPlan) -> Forecast:
    """What the study will likely take, from a few batches of noise through the rules' networks on this machine."""
    config = plan.config
    splits = Splits(plan.data.strata, config.data)
    search_runs = config.search.trials * config.search.seeds_per_trial
    schedules = len(plan.judged) * (1 + config.confirm.challengers)
    least, most = (schedules * looks for looks in (config.confirm.looks[0], config.confirm.looks[-1]))
    training = len(plan.data.labels) - len(splits.test) - len(splits.train_validation(0).validation)
    steps = config.training.epochs * (training // config.training.batch_size)
    typical = [fitted.schedule for fitted in plan.judged]
    seconds = float(np.mean([_seconds_per_step(plan, schedule) for schedule in typical])) * steps
    workers = count_workers(config)
    return Forecast(
        search_runs,
        least,
        most,
        _START_SECONDS + seconds * (search_runs + least) / workers,
        _START_SECONDS + seconds * (search_runs + most) / workers,
        resolvable_margin(len(splits.test), config.confirm.confidence),
    )


def _seconds_per_step(plan: StudyPlan, schedule: FilterSchedule) -> float:
    """Seconds of one optimiser step of one run, trained several in one pass, on noise in the images' shape."""
    config = plan.config
    torch.set_num_threads(1)  # as in a worker
    rng = np.random.default_rng(0)
    count = 2 * plan.data.classes + _PROBE_BATCHES * config.training.batch_size
    noise = ImageData(
        rng.random((count, *plan.data.image_shape), np.float32),
        np.arange(count, dtype=np.int64) % plan.data.classes,
        plan.data.classes,
        "noise",
    )
    splits = Splits(noise.labels, config.data)
    device = choose_device(config.compute.device)
    evaluate = TrainingEvaluator(config.network, config.training, noise, splits, device)
    seconds = []
    for epochs in (1, 1, 5):
        started = time.perf_counter()
        evaluate(schedule, range(_PROBE_RUNS), Fidelity(epochs), "validation")
        seconds.append(time.perf_counter() - started)
    steps = len(splits.train_validation(0).training) // config.training.batch_size
    return max(seconds[2] - seconds[1], 0.0) / (4 * max(steps, 1)) / _PROBE_RUNS
