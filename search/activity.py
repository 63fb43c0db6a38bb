"""How many filters of each stage a trained network has in use.

A stage may hold many filters that say the same thing. Their effective number is the participation ratio of the
covariance of their outputs: between 1 (all filters move together) and the number of filters (all vary equally and
independently). Owns the statistic and how activations are read off a network. Nothing here trains.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.data import ImageData
from search.evaluate import Scored
from search.networkconfig import NetworkConfig
from search.networks import build
from search.schedule import FilterSchedule
from search.splits import TrainValidation

_STAGE = re.compile(r"stage\d+")
_BATCH, _PIXELS = 256, 2**20
"""Images at a time, fewer where they are so large that those hold more pixels."""


def effective_number(covariance: NDArray[np.float64]) -> float:
    """Participation ratio of a covariance: squared sum of its eigenvalues over the sum of their squares.

    Also called the dimensionality of a population's activity (Gao 2017, bioRxiv 214262). It counts directions by their
    variance, so it depends on the scale of the filters: a loud filter hides quiet ones, though the next layer could
    turn those up. So it is a lower bound on the filters that matter rather than a count of them; compare it between
    networks of one family and recipe. From few samples it comes out too low, never above samples - 1.

    Args:
        covariance: Symmetric, no negative eigenvalues, shape `(filters, filters)`.

    Returns:
        From 1 to `filters`; 0 where nothing varies, as with filters that are all dead.
    """
    total = float(np.trace(covariance))  # sum of eigenvalues
    return total**2 / float(np.sum(covariance**2)) if total > 0 else 0.0


def stage_covariances(network: nn.Module, images: Tensor) -> list[NDArray[np.float64]]:
    """Covariance of every stage's filters over images and positions, in evaluation mode.

    Args:
        network: Its stages are its children `stage1`, `stage2`, ...; see `search.networks`. Left in evaluation mode.
        images: As the network was trained to see them, `(n_images, channels, height, width)`, on its device.

    Returns:
        One array of shape `(filters, filters)` for each stage, divided by the number of samples; none for a network
        of the user's own whose children have other names.
    """
    moments = [Moments() for _ in stages_of(network)]
    watch(network, images, moments)
    return [each.covariance() for each in moments]


def stages_of(network: nn.Module) -> list[nn.Module]:
    """Its children `stage1`, `stage2`, ...; none where a network of the user's own calls them something else."""
    return [child for name, child in network.named_children() if _STAGE.fullmatch(name)]


def watch(network: nn.Module, images: Tensor, watchers: Sequence[Callable[[nn.Module, object, Tensor], None]]) -> None:
    """Run images through a network in evaluation mode, each stage's output being shown to a watcher of its own.

    Args:
        network: Left in evaluation mode, its hooks as they were.
        images: As the network was trained to see them, `(n_images, channels, height, width)`, on its device.
        watchers: One for each of `stages_of`, called with the stage, its inputs and its output for every batch.
    """
    hooks = [stage.register_forward_hook(each) for stage, each in zip(stages_of(network), watchers, strict=True)]
    batch = max(1, min(_BATCH, _PIXELS // images[0, 0].numel()))
    network.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(images), batch):
                network(images[start : start + batch])
    finally:
        for hook in hooks:
            hook.remove()


def of_run(
    network: NetworkConfig, schedule: FilterSchedule, run: Scored, data: ImageData, split: TrainValidation
) -> tuple[float, ...]:
    """Effective number of filters of each stage on the validation images of a run, on the CPU.

    Args:
        network: The family.
        schedule: What was trained.
        run: Scored with `keep_weights`.
        data: What it was trained on.
        split: The run's own; its training images settle the normalisation.

    Raises:
        ValueError: The run kept no weights.
    """
    built = rebuilt(network, schedule, run, data)
    covariances = stage_covariances(built, normalised(data, split, split.validation))
    return tuple(effective_number(covariance) for covariance in covariances)


def rebuilt(network: NetworkConfig, schedule: FilterSchedule, run: Scored, data: ImageData) -> nn.Module:
    """The network of a run with its weights, on the CPU.

    Args:
        network: The family.
        schedule: What was trained.
        run: Scored with `keep_weights`.
        data: What it was trained on.

    Raises:
        ValueError: The run kept no weights.
    """
    if run.weights is None:
        msg = f"the run of {schedule} with seed {run.seed} kept no weights; evaluate it with keep_weights=True"
        raise ValueError(msg)
    with torch.random.fork_rng(devices=[]):  # the first weights are thrown away, so the global generator stays
        built = build(network, schedule, data.image_shape[0], data.classes)
    built.load_state_dict(run.weights)
    return built


def normalised(data: ImageData, split: TrainValidation, chosen: NDArray[np.int64]) -> Tensor:
    """Images as a run with this split saw them, `(n_images, channels, height, width)`, on the CPU.

    Args:
        data: All images.
        split: The run's own; its training images settle the normalisation.
        chosen: Indices of the images wanted, shape `(n_images,)`.
    """
    mean, deviation = (moment[:, None, None] for moment in data.normalisation(split.training))
    return torch.from_numpy((data.images[chosen] - mean) / deviation)


class Moments:
    """A watcher of one stage that adds up what a covariance needs, in double precision."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._products: Tensor | float = 0.0

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """Add a batch of outputs, `(n_images, filters, height, width)`."""
        samples = output.transpose(0, 1).flatten(1).double()  # filters, images * height * width
        self._count += samples.shape[1]
        self._sum = self._sum + samples.sum(1)
        self._products = self._products + samples @ samples.mT

    def covariance(self) -> NDArray[np.float64]:
        """Of the outputs seen, shape `(filters, filters)`, divided by their number."""
        assert isinstance(self._sum, Tensor)
        assert isinstance(self._products, Tensor)
        mean = self._sum / self._count
        covariance: NDArray[np.float64] = (self._products / self._count - torch.outer(mean, mean)).cpu().numpy()
        return covariance
