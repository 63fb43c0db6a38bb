"""What a study would do, before it trains anything: its runs, its likely time, what its test split can resolve."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from search.config import StudyConfig
from search.confirm import runs_per_job
from search.data import ANY, TEST, VALIDATION, ImageData
from search.dataconfig import DataConfig
from search.device import choose_device, count_workers
from search.errors import ConfigError, FilterSearchError
from search.evaluate import Fidelity
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.scoring import effective_images, parts_of
from search.soundness import LEARNING_RATE_FACTORS
from search.splits import Splits
from search.training import TrainingEvaluator
from search.verdict import resolvable_margin

_PROBE_BATCHES = 4
_PROBE_RUNS = 8
_PROBE_MACS = 10**10  # from which fewer batches are timed: some ten seconds of one core
_START_SECONDS = 8.0  # importing torch in a coordinator and its workers, the report at the end; measured on two cores
# A table is looked up in microseconds; what takes time is the storage, measured on two busy cores.
_TRIAL_SECONDS, _LOOKUP_SECONDS = 0.1, 0.02


@dataclass(frozen=True)
class Forecast:
    """What a study will likely take, and what it can decide.

    Attributes:
        search_runs: Training runs of the search.
        probing_runs: Runs that ask how far the verdicts can be trusted, in runs of ordinary length.
        least_confirmations: Confirmation runs when every case is decided at the first look.
        most_confirmations: Confirmation runs when every case needs the last look.
        least_seconds: Wall time for the former.
        most_seconds: Wall time for the latter.
        resolvable_margin: The margin the test split can be expected to resolve, a fraction; None without images.
    """

    search_runs: int
    probing_runs: int
    least_confirmations: int
    most_confirmations: int
    least_seconds: float
    most_seconds: float
    resolvable_margin: float | None


def forecast(plan: StudyPlan) -> Forecast:
    """What the study will likely take, from a few batches of noise through the rules' networks on this machine.

    Raises:
        ConfigError: Augmentation that the images do not allow, or a network of the user's own that fails in training.
    """
    config = plan.config
    if plan.exhaustive:
        return Forecast(0, 0, 0, 0, _START_SECONDS, _START_SECONDS, None)
    search_runs = config.search.trials * config.search.seeds_per_trial
    schedules = len(plan.judged) * (1 + config.confirm.challengers)
    spent = (schedules * looks for looks in (config.confirm.looks[0], config.confirm.looks[-1]))
    least, most = (min(runs, config.confirm.allowance or runs) for runs in spent)
    if config.table is not None:
        search = _START_SECONDS + config.search.trials * _TRIAL_SECONDS
        quick, slow = (search + runs * _LOOKUP_SECONDS for runs in (least, most))
        return Forecast(search_runs, 0, least, most, quick, slow, None)
    splits = Splits(plan.data, config.data)
    training = len(splits.train_validation(0, config.training.share).training)
    probing_runs = _probing_runs(config, len(plan.judged))
    # What is scored goes forward only, which is a third of a step's work.
    scored = len(splits.test) / config.training.batch_size / 3
    steps = config.training.epochs * max(1, training // config.training.batch_size) + scored
    typical = [fitted.schedule for fitted in plan.judged]
    seconds = float(np.mean([_seconds_per_step(plan, schedule) for schedule in typical])) * steps
    workers = count_workers(config.compute)
    sizes = [len(part) for part in parts_of(plan.data.labels[splits.test], config.training.score)]
    return Forecast(
        search_runs,
        probing_runs,
        least,
        most,
        _START_SECONDS + seconds * (search_runs + least + probing_runs) / workers,
        _START_SECONDS + seconds * (search_runs + most + probing_runs) / workers,
        max(1 / len(splits.test), resolvable_margin(effective_images(sizes), config.confirm.confidence)),
    )


def _probing_runs(config: StudyConfig, judged: int) -> int:
    soundness, training = config.soundness, config.training
    at_rates = judged * 2 * len(LEARNING_RATE_FACTORS) * soundness.learning_rate_runs
    brief = len(config.budgets) * soundness.fidelity_schedules * soundness.fidelity_runs
    return at_rates + brief + brief * training.full_epochs // training.epochs


def _seconds_per_step(plan: StudyPlan, schedule: FilterSchedule) -> float:
    """Seconds of one optimiser step of one run, trained several in one pass, on noise in the images' shape.

    Raises:
        ConfigError: A network of the user's own fails in training.
    """
    config = plan.config
    torch.set_num_threads(1)  # as in a worker
    runs = min(_PROBE_RUNS, runs_per_job(plan, schedule))
    macs = 3 * plan.cost_model.costs(schedule)["macs"] * config.training.batch_size * runs
    batches = max(1, min(_PROBE_BATCHES, _PROBE_MACS // macs))
    noise = _noise(plan.data, batches * config.training.batch_size)
    splits = Splits(noise, DataConfig(redraw_validation=False))
    device = choose_device(config.compute.device)
    evaluate = TrainingEvaluator(config.network, config.training, noise, splits, device)
    seconds, more = [], 4 if macs < _PROBE_MACS else 1
    for epochs in (1, 1, 1 + more):
        started = time.perf_counter()
        try:
            evaluate(schedule, range(runs), Fidelity(epochs), "validation")
        except Exception as error:  # a user's network may raise anything, forwards or backwards
            if config.network.factory is None or isinstance(error, FilterSearchError):
                raise
            shape, said = "x".join(map(str, noise.image_shape)), str(error).partition("\n")[0]
            msg = (
                f"the network of network.factory {config.network.factory} failed when trained as {schedule} on images "
                f"of {shape} ({type(error).__name__}: {said}); mend its forward pass"
            )
            raise ConfigError(msg) from error
        seconds.append(time.perf_counter() - started)
    return max(seconds[2] - seconds[1], 0.0) / (more * batches) / runs


def _noise(data: ImageData, training: int) -> ImageData:
    """Noise of the data's shape and type: one image of each class to test, one to validate, the others to train."""
    training = max(training, data.classes)
    own_split = np.repeat([TEST, VALIDATION, ANY], [data.classes, data.classes, training])
    rng, shape = np.random.default_rng(0), (len(own_split), *data.image_shape)
    pixels = rng.integers(0, 256, shape, np.uint8) if data.images.dtype == np.uint8 else rng.random(shape, np.float32)
    labels = np.arange(len(own_split), dtype=np.int64) % data.classes
    return ImageData(pixels, labels, data.classes, "noise", own_split=own_split)
