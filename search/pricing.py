"""Owns the step from a network family to a cost model.

One build costs 40 ms and more; the costs of ordinary families are polynomials of degree two in the filters, so they
are recovered exactly from a few builds and then priced for a whole space at once. Only a build needs torch: a cost
model that another process worked out tells its prices without.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.cost import LARGEST_LIMIT, CostModel, CostName, Costs
from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import check_multiple, largest_tensor
from search.polynomials import FittedCostModel, Measured, Ranges, fit_polynomials
from search.schedule import FilterSchedule
from search.space import Space

_LARGEST_VERIFIED = 2**48
"""Numbers a tensor may hold where polynomials are verified, so that bytes of a dozen stages add up in 64 bits."""
_UNASKED = (1, 64)
_BEYOND = Measured(*(LARGEST_LIMIT + 1,) * 3, np.array([LARGEST_LIMIT + 1]))
"""What no budget admits."""
_LARGEST_BUILT = 500
"""Schedules of a space whose every price may take a build, of 40 ms (three layers) to 0.3 s (fifty) on one core."""


@dataclass(frozen=True)
class BuiltCostModel:
    """Builds every schedule once and remembers its price: exact for any family, 40 ms to 0.3 s each.

    Attributes:
        network: The family.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step.
        space: Fewest and most filters of each stage, where a function of the user's own makes the networks: it need
            not make any other.
    """

    network: NetworkConfig
    image_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    space: Ranges | None = None
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
            self._known[schedule] = self._measured(schedule)
        return self._known[schedule]

    def _measured(self, schedule: FilterSchedule) -> Measured:
        from search import metering  # only where something is built, since it takes torch

        try:
            return metering.measure(self.network, schedule, self.image_shape, self.classes, self.batch_size)
        except ConfigError:
            nearest = self._nearest(schedule)
            if nearest == schedule:
                raise
        # Only rules on their way to a budget ask for what lies outside the space.
        above = any(f > most for f, most in zip(schedule.filters, nearest.filters, strict=True))
        return _BEYOND if above else self.measure(nearest)

    def _nearest(self, schedule: FilterSchedule) -> FilterSchedule:
        """The schedule, each stage clipped to the space."""
        if self.space is None:
            return schedule
        ranged = zip(schedule.filters, self.space, strict=True)
        return FilterSchedule(tuple(min(max(f, low), high) for f, (low, high) in ranged))

    def fixed(self, *schedules: FilterSchedule) -> set[int]:
        """Channels that networks without any filters in common share: of stem, head, images and the like."""
        from search import metering  # see above

        channels = (metering.channels_of(self.network, each, self.image_shape[0], self.classes) for each in schedules)
        return set.intersection(*channels) - {0, 1}


def fit_cost_model(
    network: NetworkConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
    multiple: int,
    stages: int,
    size: int,
    ranges: Ranges | None = None,
) -> CostModel:
    """The family's cost model: exact polynomials where it has them, memoised builds of a small space where not.

    A function of the user's own is called within the ranges only; the other families may have any filters.

    Args:
        network: The family.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step.
        multiple: What filters are multiples of; every build's filters are.
        stages: Stages of the schedules to be priced.
        size: How many schedules may be asked for.
        ranges: Fewest and most multiples of each stage of theirs; None: 1 to 64.

    Raises:
        ConfigError: More stages than the images allow, filters of this multiple that the family cannot have, a space
            too large for costs that follow no polynomial, or a function of the user's own that makes no network, or
            the same one whatever a stage's filters.
    """
    check_multiple(network, multiple)
    ranges = ranges or (_UNASKED,) * stages
    own = network.factory is not None
    space = tuple((low * multiple, high * multiple) for low, high in ranges) if own else None
    built = BuiltCostModel(network, image_shape, classes, batch_size, space)

    def fitted(coarser: int) -> FittedCostModel | None:
        most = _most_verified(network, coarser, image_shape, batch_size)
        held = tuple(
            (min(-(-low * multiple // coarser), most), min(high * multiple // coarser, most)) for low, high in ranges
        )
        if any(low > high for low, high in held):
            return None
        fixed = built.fixed(*(_apart(held, coarser) if own else _anywhere(stages, coarser)))
        return fit_polynomials(built.measure, coarser, held, fixed, anywhere=not own)

    model = fitted(multiple) or (built if size <= _LARGEST_BUILT else None)
    if model is not None:
        if space is not None:
            _refuse_unused(network, model, space)
        return model
    smooth = next((m for m in _coarser(multiple) if fitted(m) is not None), None)
    remedy = f"narrow filters.stages to at most {_LARGEST_BUILT:,} schedules"
    if smooth is not None:
        remedy = f"set filters.multiple to {smooth}, at which they do, or {remedy}"
    msg = (
        f"the costs of family {network.family} do not follow its filters smoothly at filters.multiple {multiple}, so "
        f"each of the {size:,} schedules would have to be built for its price; {remedy}"
    )
    raise ConfigError(msg)


def price_space(
    network: NetworkConfig, image_shape: tuple[int, int, int], classes: int, batch_size: int, space: Space
) -> CostModel:
    """The family's cost model for what may be sampled; see `fit_cost_model`."""
    ranges = tuple((stage.low, stage.high) for stage in space.ranges)
    return fit_cost_model(network, image_shape, classes, batch_size, space.multiple, space.stages, space.size, ranges)


def _refuse_unused(network: NetworkConfig, model: CostModel, space: Ranges) -> None:
    """Refuse a function of the user's own that makes the same of the fewest and of the most filters of a stage."""
    fewest = tuple(low for low, _ in space)
    for stage, (low, high) in enumerate(space):
        raised = (*fewest[:stage], high, *fewest[stage + 1 :])
        if low < high and model.costs(FilterSchedule(raised)) == model.costs(FilterSchedule(fewest)):
            msg = (
                f"costs do not change with the filters of stage {stage + 1}, from {low} to {high}; does "
                f"network.factory {network.factory} use them? Let it, or leave the stage out of filters.stages"
            )
            raise ConfigError(msg)


def _coarser(multiple: int) -> list[int]:
    return sorted({math.lcm(multiple, power) for power in (2, 4, 8, 16, 32)} - {multiple})


def _most_verified(network: NetworkConfig, multiple: int, image_shape: tuple[int, int, int], batch_size: int) -> int:
    """The most multiples, a power of two, at which networks can be built and all their bytes counted."""
    powers = (2**power for power in range(40, 0, -1))

    def countable(multiples: int) -> bool:
        schedule = FilterSchedule((multiples * multiple,))
        return largest_tensor(network, schedule, image_shape, batch_size) <= _LARGEST_VERIFIED

    return next(filter(countable, powers), 1)


def _anywhere(stages: int, multiple: int) -> list[FilterSchedule]:
    """Two schedules without any filters in common."""
    return [FilterSchedule(tuple(first * multiple * (stage + 1) for stage in range(stages))) for first in (2, 97)]


def _apart(ranges: Ranges, multiple: int) -> list[FilterSchedule]:
    """Two schedules near the ends of the ranges, without any filters in common where there is room."""
    rising = [min(low + stage, high) for stage, (low, high) in enumerate(ranges)]
    falling = [max(high - stage, low) for stage, (low, high) in enumerate(ranges)]
    return [FilterSchedule(tuple(m * multiple for m in multiples)) for multiples in (rising, falling)]
