"""Reads costs off a network on the meta device, where nothing is allocated or computed.

Owns the step from a network family to a cost model. One build costs milliseconds; the costs of ordinary families are
polynomials of degree two in the filters, so they are recovered exactly from a few builds and then priced for a whole
space at once. Nothing here trains.
"""

import itertools
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from search.cost import COST_NAMES, CostModel, CostName, Costs, QuadraticCost
from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import build, check_multiple, check_stages
from search.schedule import FilterSchedule

_LARGEST_TENSOR = 2**56
"""Numbers a tensor may hold in a network built for its price; torch counts bytes in 64 bits, so there is room."""
_VERIFICATIONS = 4
_VERIFIED_MULTIPLES = 64


def price(
    network: NetworkConfig,
    schedule: FilterSchedule,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
) -> Costs:
    """All costs of one candidate, from a build on the meta device.

    MACs are half the FLOPs that `torch.utils.flop_counter` counts. Memory is a prediction of the peak while training
    in float32 with AdamW: weights, their gradients and two optimiser moments each, buffers, the input batch, and every
    tensor that autograd keeps for the backward pass (each storage once). Left out are the workspaces of kernels, the
    gradients of activations (few are alive at once) and what an allocator rounds up.

    Args:
        network: The family.
        schedule: The candidate's filters.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step; 2 or more, as batch norm needs.

    Raises:
        ConfigError: More stages than the images allow, or tensors beyond what torch can count.
    """
    check_stages(network, len(schedule), image_shape)
    _refuse_uncountable(schedule, image_shape, batch_size)
    with torch.device("meta"):
        built = build(network, schedule, image_shape[0], classes)
        macs, activations = _count_forward(built, torch.empty(1, *image_shape))
        memory = _predict_memory(built, torch.empty(batch_size, *image_shape))
    params = sum(p.numel() for p in built.parameters())
    return Costs(params=params, macs=macs, activations=activations, memory=memory)


def _refuse_uncountable(schedule: FilterSchedule, image_shape: tuple[int, int, int], batch_size: int) -> None:
    channels, height, width = image_shape
    widest = max(*schedule.filters, channels)
    largest = max(9 * widest**2, batch_size * widest * height * width)
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


def _predict_memory(network: nn.Module, images: Tensor) -> int:
    """Bytes of one training step; see `price`."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other storage gets its address
        return tensor

    keep(images)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network.train()(images)
        functional.cross_entropy(logits, torch.empty(len(images), dtype=torch.long))
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        kept.pop(tensor.untyped_storage()._cdata, None)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    buffers = sum(buffer.nbytes for buffer in network.buffers())
    return 4 * weights + buffers + sum(storage.nbytes() for storage in kept.values())


@dataclass(frozen=True)
class FittedCostModel:
    """Exact polynomials in the filters: any size priced in microseconds, nothing built."""

    params: QuadraticCost
    macs: QuadraticCost
    activations: QuadraticCost
    memory: QuadraticCost

    def costs(self, schedule: FilterSchedule) -> Costs:
        """See `search.cost.CostModel`."""
        return Costs(
            params=self.params(schedule.filters),
            macs=self.macs(schedule.filters),
            activations=self.activations(schedule.filters),
            memory=self.memory(schedule.filters),
        )

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        """See `search.cost.CostModel`."""
        polynomial: QuadraticCost = getattr(self, cost)
        return polynomial.table(filters)


@dataclass(frozen=True)
class BuiltCostModel:
    """Builds every schedule once and remembers its price: exact for any family, milliseconds each."""

    network: NetworkConfig
    image_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    _known: dict[FilterSchedule, Costs] = field(default_factory=dict, repr=False, compare=False)

    def costs(self, schedule: FilterSchedule) -> Costs:
        """See `search.cost.CostModel`.

        Raises:
            ConfigError: The schedule is too large to be built even without memory.
        """
        if schedule not in self._known:
            self._known[schedule] = price(self.network, schedule, self.image_shape, self.classes, self.batch_size)
        return self._known[schedule]

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        """See `search.cost.CostModel`."""
        rows = [FilterSchedule(tuple(int(f) for f in row)) for row in filters]
        return np.array([self.costs(schedule)[cost] for schedule in rows], dtype=np.int64)


def fit_cost_model(
    network: NetworkConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
    multiple: int,
    stages: int,
) -> CostModel:
    """The family's cost model: exact polynomials where it has them, memoised builds where it does not.

    Polynomials come from (stages + 1)(stages + 2) / 2 builds in exact arithmetic. They are believed only when all
    coefficients are whole and four random schedules, drawn with a fixed seed, cost what fresh builds of them cost.

    Args:
        network: The family.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step.
        multiple: What filters are multiples of; every build's filters are.
        stages: Stages of the schedules to be priced.

    Raises:
        ConfigError: More stages than the images allow, or filters of this multiple that the family cannot have.
    """
    check_multiple(network, multiple)
    built = BuiltCostModel(network, image_shape, classes, batch_size)

    def sample(multiples: tuple[int, ...]) -> Costs:
        return built.costs(FilterSchedule(tuple(m * multiple for m in multiples)))

    samples = {point: sample(point) for point in _sample_points(stages)}
    polynomials = {
        cost: _interpolate({point: costs[cost] for point, costs in samples.items()}, multiple) for cost in COST_NAMES
    }
    whole = {cost: polynomial for cost, polynomial in polynomials.items() if polynomial is not None}
    if len(whole) < len(COST_NAMES):
        return built
    fitted = FittedCostModel(whole["params"], whole["macs"], whole["activations"], whole["memory"])
    random = np.random.default_rng(0).integers(1, _VERIFIED_MULTIPLES, (_VERIFICATIONS, stages), endpoint=True)
    for row in random * multiple:
        schedule = FilterSchedule(tuple(int(f) for f in row))
        if fitted.costs(schedule) != built.costs(schedule):
            return built
    return fitted


def _sample_points(stages: int) -> list[tuple[int, ...]]:
    """Points at 1, 2 and 3 multiples that determine every coefficient, in order: base, steps, double steps, pairs."""
    moves: list[tuple[int, ...]] = [(), *((i,) for i in range(stages)), *((i, i) for i in range(stages))]
    moves += itertools.combinations(range(stages), 2)
    return [tuple(1 + move.count(i) for i in range(stages)) for move in moves]


def _interpolate(values: dict[tuple[int, ...], int], multiple: int) -> QuadraticCost | None:
    """The polynomial of degree two through the values at `_sample_points`; None when a coefficient is not whole.

    In n = multiples - 1 finite differences give it; n = f / multiple - 1 turns it into one in the filters.
    """
    points = iter(values.values())
    stages = len(next(iter(values)))
    base = next(points)
    step = [next(points) - base for _ in range(stages)]
    double = [next(points) - base for _ in range(stages)]
    quadratic = {(i, i): Fraction(double[i] - 2 * step[i], 2) for i in range(stages)}
    for i, j in itertools.combinations(range(stages), 2):
        quadratic[i, j] = Fraction(next(points) - base - step[i] - step[j])
    slope = [step[i] - quadratic[i, i] for i in range(stages)]
    constant = base - sum(slope) + sum(quadratic.values())
    linear = [(slope[i] - sum(q * pair.count(i) for pair, q in quadratic.items())) / multiple for i in range(stages)]
    upper = [[quadratic.get((i, j), Fraction(0)) / multiple**2 for j in range(stages)] for i in range(stages)]
    if any(c.denominator != 1 for c in itertools.chain([Fraction(constant)], linear, *upper)):
        return None
    return QuadraticCost(
        int(constant), tuple(int(c) for c in linear), tuple(tuple(int(c) for c in row) for row in upper)
    )
