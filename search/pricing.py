"""Reads costs off a network on the meta device, where nothing is allocated or computed.

Owns the step from a network family to a cost model. One build costs 40 ms and more; the costs of ordinary families are
polynomials of degree two in the filters, so they are recovered exactly from a few builds and then priced for a whole
space at once. Nothing here trains.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search.cost import CostModel, CostName, Costs
from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import build, check_multiple, check_stages
from search.networks.factory import check_logits
from search.polynomials import FittedCostModel, Measured, fit_polynomials
from search.schedule import FilterSchedule
from search.stepmemory import step_memory

_LARGEST_TENSOR = 2**56
"""Numbers a tensor may hold in a network built for its price; torch counts bytes in 64 bits, so there is room."""
_LARGEST_BUILT = 500
"""Schedules of a space whose every price may take a build, of 40 ms (three layers) to 0.3 s (fifty) on one core."""


def price(
    network: NetworkConfig,
    schedule: FilterSchedule,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
) -> Costs:
    """All costs of one candidate, from a build on the meta device.

    MACs are half the FLOPs that `torch.utils.flop_counter` counts. Memory is a prediction of the peak while training
    in float32 with AdamW, see `search.stepmemory`.

    Args:
        network: The family.
        schedule: The candidate's filters.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step; 2 or more, as batch norm needs.

    Raises:
        ConfigError: More stages than the images allow, filters the family cannot have, tensors beyond what torch can
            count, or a function of the user's own that makes no such network.
    """
    return _measure(network, schedule, image_shape, classes, batch_size).costs


def _measure(
    network: NetworkConfig,
    schedule: FilterSchedule,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
) -> Measured:
    check_stages(network, len(schedule), image_shape)
    _refuse_uncountable(network, schedule, image_shape, batch_size)
    built = _build(network, schedule, image_shape[0], classes)
    images = torch.empty(batch_size, *image_shape, device="meta")
    if network.factory is not None:
        check_logits(network.factory, built, images, classes)
    with torch.device("meta"):
        macs, activations = _count_forward(built, images[:1])
        moments = step_memory(built, images)
    return Measured(sum(p.numel() for p in built.parameters()), macs, activations, moments)


def _build(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> nn.Module:
    """The network on the meta device."""
    try:
        with torch.device("meta"):
            return build(network, schedule, in_channels, classes)
    except ConfigError:
        if network.factory is None:
            raise
    # A function that computes with tensors on its way, if only a list of rates, cannot do so on the meta device.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return build(network, schedule, in_channels, classes).to("meta")


def _refuse_uncountable(
    network: NetworkConfig, schedule: FilterSchedule, image_shape: tuple[int, int, int], batch_size: int
) -> None:
    channels, height, width = image_shape
    widest = max(*schedule.filters, channels, network.stem_filters or 1, network.head_filters or 1)
    inner = widest
    if network.family == "inverted":
        expansion = network.expansion
        inner *= math.ceil(max(expansion) if isinstance(expansion, tuple) else expansion)
    largest = max(9 * widest * inner, 49 * widest * channels, batch_size * inner * height * width)
    if largest > _LARGEST_TENSOR:
        msg = (
            f"schedule {schedule} needs tensors of up to {largest:,} numbers; a network is built for its price up to "
            f"{_LARGEST_TENSOR:,}: lower the filters or the batch size"
        )
        raise ConfigError(msg)


def _count_forward(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """MACs and convolution outputs of one forward pass of one image."""
    outputs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output.numel()))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network.eval()(image)
    for hook in hooks:
        hook.remove()
    return flops.get_total_flops() // 2, sum(outputs)


@dataclass(frozen=True)
class BuiltCostModel:
    """Builds every schedule once and remembers its price: exact for any family, 40 ms to 0.3 s each."""

    network: NetworkConfig
    image_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    _known: dict[FilterSchedule, Measured] = field(default_factory=dict, repr=False, compare=False)

    def costs(self, schedule: FilterSchedule) -> Costs:
        """See `search.cost.CostModel`.

        Raises:
            ConfigError: The schedule is too large to be built even without memory.
        """
        return self.measure(schedule).costs

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        """See `search.cost.CostModel`."""
        rows = [FilterSchedule(tuple(int(f) for f in row)) for row in filters]
        return np.array([self.costs(schedule)[cost] for schedule in rows], dtype=np.int64)

    def measure(self, schedule: FilterSchedule) -> Measured:
        """What a schedule costs, and holds at every moment of a training step."""
        if schedule not in self._known:
            self._known[schedule] = _measure(self.network, schedule, self.image_shape, self.classes, self.batch_size)
        return self._known[schedule]

    def fixed(self, stages: int, multiple: int) -> set[int]:
        """Channels that two networks without any filters in common share: of stem, head, images and the like."""
        shared = set.intersection(
            *(
                {size for weight in self._weights(schedule) for size in weight.shape[:2]}
                for schedule in (_rising(stages, 2 * multiple), _rising(stages, 97 * multiple))
            )
        )
        return shared - {0, 1}

    def _weights(self, schedule: FilterSchedule) -> list[Tensor]:
        return [*_build(self.network, schedule, self.image_shape[0], self.classes).parameters()]


def fit_cost_model(
    network: NetworkConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
    multiple: int,
    stages: int,
    size: int,
) -> CostModel:
    """The family's cost model: exact polynomials where it has them, memoised builds of a small space where not.

    Args:
        network: The family.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step.
        multiple: What filters are multiples of; every build's filters are.
        stages: Stages of the schedules to be priced.
        size: How many schedules may be asked for.

    Raises:
        ConfigError: More stages than the images allow, filters of this multiple that the family cannot have, or a
            space too large for costs that follow no polynomial.
    """
    check_multiple(network, multiple)
    built = BuiltCostModel(network, image_shape, classes, batch_size)

    def fitted(coarser: int) -> FittedCostModel | None:
        return fit_polynomials(built.measure, coarser, stages, built.fixed(stages, coarser))

    if (model := fitted(multiple)) is not None:
        return model
    if size <= _LARGEST_BUILT:
        return built
    smooth = next((m for m in _coarser(multiple) if fitted(m) is not None), None)
    remedy = f"narrow filters.stages to at most {_LARGEST_BUILT:,} schedules"
    if smooth is not None:
        remedy = f"set filters.multiple to {smooth}, at which they do, or {remedy}"
    msg = (
        f"the costs of family {network.family} do not follow its filters smoothly at filters.multiple {multiple}, so "
        f"each of the {size:,} schedules would have to be built for its price; {remedy}"
    )
    raise ConfigError(msg)


def _coarser(multiple: int) -> list[int]:
    return sorted({math.lcm(multiple, power) for power in (2, 4, 8, 16, 32)} - {multiple})


def _rising(stages: int, first: int) -> FilterSchedule:
    return FilterSchedule(tuple(first * (stage + 1) for stage in range(stages)))
