"""The seam between what decides and what trains: one call scores one candidate under several seeds.

Owns the values that cross it. Knows nothing of torch, storage or statistics, so that a training and a table of known
accuracies serve the same callers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from search.schedule import FilterSchedule
from search.trainingconfig import TrainingConfig

Split = Literal["validation", "test"]
FailureReason = Literal["diverged", "oom"]
OnEpoch = Callable[[int, float], bool]
"""Called after each epoch with its number (from 1) and the mean validation accuracy over the seeds; True stops."""


@dataclass(frozen=True)
class Fidelity:
    """How much training a run gets: epochs, share of the training split; and at how many times the learning rate."""

    epochs: int
    share: float = 1.0
    learning_rate_factor: float = 1.0

    @classmethod
    def brief(cls, recipe: TrainingConfig, learning_rate_factor: float = 1.0) -> Self:
        """What a trial and a confirmation run get."""
        return cls(recipe.epochs, recipe.share, learning_rate_factor)

    @classmethod
    def full(cls, recipe: TrainingConfig) -> Self:
        """What `filter-search train` gives."""
        return cls(recipe.full_epochs)


@dataclass(frozen=True)
class Scored:
    """A run that ended with a score, that of its last epoch.

    Attributes:
        seed: What settled initialisation, data order and the training/validation split. Runs of one schedule on one
            split with equal seeds are one run, however often they were asked for.
        accuracy: Share of the scored split's images classified correctly, in [0, 1]; the mean of that share over the
            classes where the recipe's score is balanced accuracy.
        loss: Mean cross-entropy on the scored split, in nats; NaN from a table, which does not tell it.
        correct: Per image of the scored split, whether it was classified correctly; shape `(n_images,)`. None from a
            table, which has no images.
        epochs: Epochs trained; fewer than asked for when `on_epoch` stopped the run.
        wall_seconds: Wall time of the pass divided by the seeds trained in it.
        peak_bytes: Peak device memory in tensors of the pass over what they held before it; None where not measured.
        peak_reserved_bytes: The same of what torch's allocator had from the driver, which is more.
        replicas: Runs trained in the pass; None from a table.
        weights: The network's state dict, when asked for.
    """

    seed: int
    accuracy: float
    loss: float
    correct: NDArray[np.bool_] | None
    epochs: int
    wall_seconds: float
    peak_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    replicas: int | None = None
    weights: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Failed:
    """A run that ended without a score."""

    seed: int
    reason: FailureReason
    detail: str
    wall_seconds: float


Run = Scored | Failed


class Evaluate(Protocol):
    """Trains, or looks up, one candidate once per seed."""

    def __call__(
        self,
        schedule: FilterSchedule,
        seeds: Sequence[int],
        fidelity: Fidelity,
        score_on: Split,
        on_epoch: OnEpoch | None = None,
        keep_weights: bool = False,
    ) -> list[Run]:
        """One `Scored` or `Failed` per seed, in the order of `seeds`.

        Args:
            schedule: The candidate's filters; network family and recipe are fixed in the evaluator.
            seeds: At least one; equal seeds give equal runs on the same hardware and path.
            fidelity: How much training.
            score_on: The split the score is read from. Search asks for validation, only confirmation for test.
            on_epoch: See `OnEpoch`; None skips the extra validation passes.
            keep_weights: Return the trained weights.
        """
        ...
