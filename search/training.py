"""Trains a candidate: where a score is computed.

Owns how seeds become replicas and what counts as a failure. Knows nothing of storage, budgets or statistics. Each run
is settled by its seed alone: initialisation, data order and split come from it, and torch's and numpy's global
generators are neither read nor moved.

Dimension legend: b batch, k replicas, c channels, h height, w width, n classes.
"""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import nn

from search.augment import Augmentation, drawing_from
from search.cpukernels import pool_first, subsample_first
from search.data import ImageData, check_augment
from search.evaluate import Failed, Fidelity, OnEpoch, Run, Scored, Split
from search.fitting import MemoryMeter, fit, is_out_of_memory, reproducible_kernels
from search.networkconfig import NetworkConfig
from search.networks import build
from search.replicaimages import ReplicaImages
from search.replicas import Drawing, FusedReplicas, Replicas, SeparateReplicas, fuse
from search.replicatraining import ReplicaTraining
from search.schedule import FilterSchedule
from search.sharedgpu import SharedGpu
from search.splits import Splits
from search.trainingconfig import TrainingConfig

_ORDER_STREAM = 4
"""First word of the data order's entropy; `augment` lists all such words, so no draw shares a stream with another."""
_NETWORK_STREAM = 8
"""Of what networks draw in their passes, such as dropout."""

_TIMED_EPOCHS = 100  # more than the steps that are timed, so that the learning rate's schedule reaches beyond them


def _draws(seeds: Sequence[int], training: Sequence[np.random.Generator]) -> Drawing:
    """What a network of each seed draws in its passes: by its seed alone, whatever it is trained beside.

    Scoring draws the same every time and nothing from what training draws, so it does not disturb the run.
    """

    def drawing(replica: int, device: torch.device, trains: bool) -> AbstractContextManager[None]:
        rng = training[replica] if trains else np.random.default_rng((_NETWORK_STREAM, seeds[replica]))
        return drawing_from(rng, device)

    return drawing


class TrainingEvaluator:
    """Scores candidates by training them; implements `search.evaluate.Evaluate`.

    All seeds of a call train in one pass, unless `together` says that they train faster one after the other, and in
    ever smaller ones where memory does not hold them together. A seed gives
    the same run alone or among others up to rounding; bit for bit it is the same only among as many seeds, on the
    same hardware with as many threads, because kernels of another width sum in another order.

    Args:
        network: The family.
        training: The recipe.
        data: All images; moved to the device once, here.
        splits: Which of them test, validate and train.
        device: Where to train.
        fit: What runs a training; one that shows and keeps nothing unless given.

    Attributes:
        together: Whether a schedule's seeds train in one pass; set it to where that is measured to be faster.
        gpu: What keeps other processes on the same GPU apart where memory lacks; None on the CPU.

    Raises:
        ConfigError: Augmentation that the images do not allow.
    """

    def __init__(
        self,
        network: NetworkConfig,
        training: TrainingConfig,
        data: ImageData,
        splits: Splits,
        device: torch.device,
        fit: Callable[[pl.LightningModule, int, torch.device], None] = fit,
    ) -> None:
        check_augment(training.augment, data)
        self._network = network
        self._recipe = training
        self._data = data
        self._splits = splits
        self._device = device
        self._fit = fit
        self.together: Callable[[FilterSchedule], bool] = lambda _: True
        self.gpu = SharedGpu.of(device)
        self._images = torch.from_numpy(data.images).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)

    def __call__(
        self,
        schedule: FilterSchedule,
        seeds: Sequence[int],
        fidelity: Fidelity,
        score_on: Split,
        on_epoch: OnEpoch | None = None,
        keep_weights: bool = False,
    ) -> list[Run]:
        """See `search.evaluate.Evaluate`."""
        if len(seeds) > 1 and not self.together(schedule):
            parts = [self(schedule, [seed], fidelity, score_on, on_epoch, keep_weights) for seed in seeds]
            return [run for part in parts for run in part]
        train = partial(self._train_together, schedule, seeds, fidelity, score_on, on_epoch, keep_weights)
        with self.gpu.beside_others() if self.gpu else nullcontext():
            runs = train()
        if not all(isinstance(run, Failed) and run.reason == "oom" for run in runs):
            return runs
        if len(seeds) > 1:
            halves = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
            return [run for half in halves for run in self(schedule, half, fidelity, score_on, on_epoch, keep_weights)]
        if self.gpu:
            with self.gpu.alone():
                again = train()
            return [replace(run, wall_seconds=run.wall_seconds + runs[0].wall_seconds) for run in again]
        return runs

    def _train_together(
        self,
        schedule: FilterSchedule,
        seeds: Sequence[int],
        fidelity: Fidelity,
        score_on: Split,
        on_epoch: OnEpoch | None,
        keep_weights: bool,
    ) -> list[Run]:
        """One pass; all seeds fail alike where memory does not hold it."""
        started = time.perf_counter()
        memory = MemoryMeter.start(self._device)
        try:
            module = self._module(schedule, seeds, fidelity, score_on, on_epoch)
            self._fit(module, fidelity.epochs, self._device)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            module, detail = None, str(error).partition("\n")[0]
        seconds = (time.perf_counter() - started) / len(seeds)
        if module is None:
            gc.collect()  # here, not in the handler: until it ends, its traceback holds the tensors that did fit
            return [Failed(seed, "oom", f"{schedule}: {detail}", seconds) for seed in seeds]
        peak, reserved = (None, None) if memory is None else (memory.peak_allocated, memory.peak_reserved)
        runs: list[Run] = []
        for replica, seed in enumerate(seeds):
            if divergence := module.divergence(replica):
                runs.append(Failed(seed, "diverged", divergence, seconds))
                continue
            runs.append(
                Scored(
                    seed,
                    float(module.final.accuracy[replica]),
                    float(module.final.loss[replica]),
                    np.ascontiguousarray(module.final.correct[:, replica]),
                    module.epochs_done,
                    seconds,
                    peak,
                    reserved,
                    len(seeds),
                    module.network.state_dict_of(replica) if keep_weights else None,
                )
            )
        return runs

    def step_seconds(self, schedule: FilterSchedule, replicas: int) -> float:
        """Seconds that a training step takes a replica, where so many train in one pass: the fastest of a few."""
        seeds = range(replicas)
        module = self._module(schedule, seeds, Fidelity(_TIMED_EPOCHS), "validation", None)
        with self.gpu.alone() if self.gpu else nullcontext(), reproducible_kernels():
            module.to(self._device)
            return module.fastest_step() / replicas

    def _module(
        self,
        schedule: FilterSchedule,
        seeds: Sequence[int],
        fidelity: Fidelity,
        score_on: Split,
        on_epoch: OnEpoch | None,
    ) -> ReplicaTraining:
        splits = [self._splits.train_validation(seed, fidelity.share) for seed in seeds]
        training = np.stack([split.training for split in splits], axis=1)
        validation = np.stack([split.validation for split in splits], axis=1)
        test = np.repeat(self._splits.test[:, None], len(seeds), axis=1)

        def after_epoch(module: ReplicaTraining) -> bool:
            if on_epoch is None:
                return False
            module.validated = module.score(validation)
            return on_epoch(module.epochs_done, module.validated.mean_accuracy())

        return ReplicaTraining(
            self._build(schedule, seeds),
            self._see(training),
            training,
            validation if score_on == "validation" else test,
            [np.random.default_rng((_ORDER_STREAM, seed)) for seed in seeds],
            Augmentation(self._recipe.augment, self._data.classes, seeds) if self._recipe.augment.in_words else None,
            self._recipe,
            fidelity,
            after_epoch,
        )

    def _build(self, schedule: FilterSchedule, seeds: Sequence[int]) -> Replicas:
        networks = [self._initialise(schedule, seed) for seed in seeds]
        if self._network.family == "factory":
            # separate though there be one: it may draw, and what is fused with others does not
            fused = fuse(networks) if len(networks) > 1 else None
            generators = [np.random.default_rng((_NETWORK_STREAM, seed)) for seed in seeds]
            built = fused or SeparateReplicas(networks, _draws(seeds, generators))
            built.generators = generators
            return built.lay_out(torch.contiguous_format)  # its forward pass may need it, as `view` does
        replicas: Replicas = fuse(networks) or SeparateReplicas(networks)
        if self._device.type == "cpu":
            subsample_first(replicas)
            for network in replicas.children() if isinstance(replicas, FusedReplicas) else networks:
                pool_first(network)
        return replicas.lay_out(torch.channels_last)

    def _initialise(self, schedule: FilterSchedule, seed: int) -> nn.Module:
        """The network of one seed, drawn on the CPU so that it is the same for every device."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs as well
            return build(self._network, schedule, self._data.image_shape[0], self._data.classes)

    def _see(self, training: NDArray[np.int64]) -> ReplicaImages:
        """The images as replicas with these training images, `(n_images, k)`, normalise them."""
        moments = [self._data.normalisation(indices) for indices in training.T]
        mean, deviation = (
            torch.from_numpy(np.stack(moment)).to(self._device)[:, :, None, None]
            for moment in zip(*moments, strict=True)
        )
        return ReplicaImages(self._images, self._labels, mean, deviation)
