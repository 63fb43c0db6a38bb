"""The replicas of one candidate in training, as Lightning sees them: a whole epoch is one step.

Owns the loop, the optimiser and what counts as divergence. Knows nothing of seeds, schedules or how replicas are made.

Dimension legend: b batch, k replicas, c channels, h height, w width, n classes.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.augment import Augmentation
from search.cudagraph import CapturedPasses, Passes
from search.evaluate import Fidelity
from search.replicaimages import ReplicaImages
from search.replicas import FusedReplicas, Replicas
from search.replicascore import ReplicaScore, replica_losses
from search.scoring import accuracy, parts_of
from search.trainingconfig import TrainingConfig

_STEPS_TIMED = 6  # the first ones on a GPU precede the capture of its graph


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
        self._passes: Passes = self._forth_and_back
        if self.device.type == "cuda" and isinstance(self.network, FusedReplicas):  # others may draw in their passes
            self._passes = CapturedPasses(self._forth_and_back, self.device)
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
            total += self.step(order[start : start + self._batch])
        self.epochs_done += 1
        self.losses = total / self._steps
        for replica in np.flatnonzero(~torch.isfinite(total).cpu().numpy()):
            self._diverged.setdefault(int(replica), self.epochs_done)

    def step(self, indices: Tensor) -> Tensor:
        """One step on the images at indices `(b, k)`; the mean loss of every replica, `(k,)`, in nats."""
        losses = self._passes(*self._training_batch(indices))
        self._optimizer.step()
        self._schedule.step()
        return losses

    def _forth_and_back(self, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients of one batch in the parameters; the mean loss of every replica, `(k,)`."""
        half = self._recipe.precision == "bfloat16"
        # uncached: each weight is cast once a pass anyway, and a CUDA graph may not hold on to what is cast outside it
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            logits = self.network(images)
        losses = replica_losses(logits.float(), labels).mean(0)
        self._optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call] # a sum, so each replica has the gradients it has alone
        return losses.detach()

    def fastest_step(self) -> float:
        """Seconds of the fastest of a few steps, of a processor or, on a GPU, by the clock; the weights move."""
        self.configure_optimizers()
        indices = self._shuffle()[: self._batch]
        return min(self._timed(indices) for _ in range(_STEPS_TIMED))

    def _timed(self, indices: Tensor) -> float:
        if self.device.type == "cpu":
            begun = time.process_time()  # of this process alone: other work on the machine is left out
            self.step(indices)
            return time.process_time() - begun
        torch.cuda.synchronize(self.device)
        begun = time.perf_counter()
        self.step(indices)
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - begun

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
