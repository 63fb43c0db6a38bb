"""Trains a candidate: where a score is computed.

Owns the recipe (AdamW under a one-cycle schedule), the loop and what counts as a failure. Knows nothing of storage,
budgets or statistics. Each run is settled by its seed alone: initialisation, data order and split come from it, and
torch's and numpy's global generators are neither read nor moved.

Dimension legend: b batch, k replicas, c channels, h height, w width, n classes.
"""

import gc
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.augment import Augmentation, check_augment, drawing_from
from search.config import DeviceName
from search.data import ImageData
from search.errors import ConfigError
from search.evaluate import Failed, Fidelity, OnEpoch, Run, Scored, Split
from search.fitting import MemoryMeter, fit, is_out_of_memory
from search.networkconfig import NetworkConfig
from search.networks import build
from search.replicaimages import ReplicaImages
from search.replicas import Drawing, Replicas, SeparateReplicas, fuse, subsample_first
from search.replicascore import ReplicaScore, replica_losses
from search.schedule import FilterSchedule
from search.scoring import accuracy, parts_of
from search.splits import Splits
from search.trainingconfig import TrainingConfig

_ORDER_STREAM = 4
"""First word of the data order's entropy; `augment` lists all such words, so no draw shares a stream with another."""
_NETWORK_STREAM = 8
"""Of what networks draw in their passes, such as dropout."""


def choose_device(name: DeviceName) -> torch.device:
    """The device to train on; `auto` takes the GPU where there is one.

    Raises:
        ConfigError: `cuda` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        msg = (
            "compute.device is cuda, but torch sees no CUDA device; set it to cpu or auto, or repair driver and torch"
        )
        raise ConfigError(msg)
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda", torch.cuda.current_device()) if use_cuda else torch.device("cpu")


class ReplicaTraining(pl.LightningModule):
    """One candidate's replicas in training; one `training_step` is a whole epoch.

    A step of a tiny network costs less than Lightning's bookkeeping around it (0.25 ms), hence the epoch as the unit
    and manual optimisation. Each epoch every replica visits its own images in its own order, in batches of exactly
    `batch_size`; the images left over are dropped, others every epoch. Fewer images than that make one batch.

    Args:
        network: The replicas.
        images: What they see.
        training: Indices of each replica's training images, `(n_images, k)`.
        scored: Indices of the images the trained replicas are scored on, likewise.
        orders: What shuffles the training images, one generator per replica.
        augmentation: What varies them; None where they train as they are.
        recipe: Batch size, peak learning rate, weight decay.
        fidelity: Epochs to come, the one-cycle schedule ends with the last; what multiplies the learning rate.
        after_epoch: Called with the module after each epoch; True stops.

    Attributes:
        epochs_done: Epochs trained so far.
        losses: Mean training loss of every replica in the last epoch, `(k,)`.
        validated: The last validation score, where somebody asked for it.
        final: The score once trained.
    """

    losses: Tensor
    validated: ReplicaScore
    final: ReplicaScore

    def __init__(
        self,
        network: Replicas,
        images: ReplicaImages,
        training: NDArray[np.int64],
        scored: NDArray[np.int64],
        orders: Sequence[np.random.Generator],
        augmentation: Augmentation | None,
        recipe: TrainingConfig,
        fidelity: Fidelity,
        after_epoch: "Callable[[ReplicaTraining], bool]",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.epochs_done = 0
        self._diverged: dict[int, int] = {}  # epoch in which a replica's loss ceased to be finite
        self._images = images
        self._training = training
        self._scored = scored
        self._orders = orders
        self._augmentation = augmentation
        self._recipe = recipe
        self._fidelity = fidelity
        self._after_epoch = after_epoch
        self._batch = recipe.batch_of(len(training))
        self._steps = len(training) // self._batch
        self._sigterm = signal.getsignal(signal.SIGTERM)
        self._generators = [*orders, *(augmentation.generators if augmentation else ()), *network.generators]
        self._resumed: dict[str, Any] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW (Loshchilov 2017, 1711.05101) under the one-cycle schedule (Smith 2017, 1708.07120)."""
        peak = self._recipe.learning_rate * self._fidelity.learning_rate_factor
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=peak, weight_decay=self._recipe.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=peak, total_steps=self._steps * self._fidelity.epochs
        )
        return self._optimizer

    @property
    def learning_rate(self) -> float:
        """That of the step to come."""
        return float(self._schedule.get_last_lr()[0])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not keep by itself; with it a resumed training is the same bit for bit."""
        checkpoint["training"] = {
            "epochs_done": self.epochs_done,
            "diverged": self._diverged,
            "schedule": self._schedule.state_dict(),
            "generators": [each.bit_generator.state for each in self._generators],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what `on_train_start` puts back: there is no optimizer and no schedule yet."""
        self._resumed = checkpoint["training"]

    def on_train_start(self) -> None:
        """Put back what a checkpoint held, and take SIGTERM back from Lightning.

        Which would end the run and keep the signal from the study's own drain.
        """
        if self._resumed is not None:
            self.epochs_done, self._diverged = self._resumed["epochs_done"], self._resumed["diverged"]
            self._schedule.load_state_dict(self._resumed["schedule"])
            for generator, state in zip(self._generators, self._resumed["generators"], strict=True):
                generator.bit_generator.state = state
        if threading.current_thread() is threading.main_thread() and self._sigterm is not None:
            signal.signal(signal.SIGTERM, self._sigterm)

    def training_step(self, *_: object) -> None:
        """One epoch of every replica."""
        order = self._shuffle()
        total = torch.zeros(self.network.count, device=self.device)
        for start in range(0, self._steps * self._batch, self._batch):
            images, labels = self._training_batch(order[start : start + self._batch])
            losses = replica_losses(self.network(images), labels).mean(0)
            self._optimizer.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call] # a sum, so each replica has the gradients it has alone
            self._optimizer.step()
            self._schedule.step()
            total += losses.detach()
        self.epochs_done += 1
        self.losses = total / self._steps
        for replica in np.flatnonzero(~torch.isfinite(total).cpu().numpy()):
            self._diverged.setdefault(int(replica), self.epochs_done)

    def _training_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(b, k, c, h, w)` and labels, `(b, k)` or shares of the classes `(b, k, n)`, at indices `(b, k)`."""
        if self._augmentation is None:
            return self._images.gather(indices)
        return self._augmentation.mix(*self._images.gather(indices, self._augmentation.vary))

    def on_train_epoch_end(self) -> None:
        """Stop when no replica is left to train, or when the caller asks."""
        if len(self._diverged) == self.network.count or self._after_epoch(self):
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Score here, while the weights are on the device: Lightning moves them to the CPU afterwards."""
        self.final = self.score(self._scored)

    @torch.no_grad()
    def score(self, indices: NDArray[np.int64]) -> ReplicaScore:
        """How every replica does on its images, `(n_images, k)`, in batches no larger than those it trains on."""
        self.network.eval()
        parts: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(indices), self._recipe.batch_size):
            part = torch.from_numpy(indices[start : start + self._recipe.batch_size]).to(self.device)
            images, labels = self._images.gather(part)
            logits = self.network(images)
            parts.append(((logits.argmax(-1) == labels).cpu(), replica_losses(logits, labels).cpu()))
        self.network.train()
        correct, losses = (torch.cat(column) for column in zip(*parts, strict=True))
        classes = self._images.labels.cpu().numpy()[indices]
        accuracies = [
            accuracy(right, parts_of(own, self._recipe.score))
            for right, own in zip(correct.numpy().T, classes.T, strict=True)
        ]
        return ReplicaScore(correct.numpy(), losses.double().mean(0).numpy(), np.array(accuracies))

    def divergence(self, replica: int) -> str | None:
        """Why a trained replica has no score; None where it has one."""
        if replica in self._diverged:
            return f"training loss not finite in epoch {self._diverged[replica]} of {self._fidelity.epochs}"
        loss = self.final.loss[replica]
        return None if np.isfinite(loss) else f"loss {loss} after {self.epochs_done} epochs"

    def _shuffle(self) -> Tensor:
        """Every replica's training indices in a fresh order, `(n_images, k)`."""
        columns = [order.permutation(column) for order, column in zip(self._orders, self._training.T, strict=True)]
        return torch.from_numpy(np.stack(columns, axis=1)).to(self.device)


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

    All seeds of a call train in one pass, in ever smaller ones where memory does not hold them together. A seed gives
    the same run alone or among others up to rounding; bit for bit it is the same only among as many seeds, on the
    same hardware with as many threads, because kernels of another width sum in another order.

    Args:
        network: The family.
        training: The recipe.
        data: All images; moved to the device once, here.
        splits: Which of them test, validate and train.
        device: Where to train.
        fit: What runs a training; one that shows and keeps nothing unless given.

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
        started = time.perf_counter()
        memory = MemoryMeter.start(self._device)
        try:
            module = self._train(schedule, seeds, fidelity, score_on, on_epoch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            module, detail = None, str(error).partition("\n")[0]
        seconds = (time.perf_counter() - started) / len(seeds)
        if module is None:
            # here, not in the handler: until it ends, its traceback holds the tensors that did fit
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if len(seeds) == 1:
                return [Failed(seeds[0], "oom", f"{schedule}: {detail}", seconds)]
            parts = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
            return [run for part in parts for run in self(schedule, part, fidelity, score_on, on_epoch, keep_weights)]
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

    def _train(
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

        module = ReplicaTraining(
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
        self._fit(module, fidelity.epochs, self._device)
        return module

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
