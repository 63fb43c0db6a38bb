"""The space: which schedules may be sampled, as independent ranges of whole multiples.

A dimension is the number of multiples, from `low` to `high`: an index into the grid of allowed filters that stays
fixed however far the second stage reaches, and that Optuna can spread by its logarithm.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from search.config import FiltersConfig
from search.cost import Budget, CostModel, exact_amount
from search.errors import ConfigError
from search.rules import BISECTIONS, LARGEST_BASE, largest_within, round_to_multiple
from search.schedule import FilterSchedule

LARGEST_ENUMERATION = 300_000
"""Schedules of a space that are looked at one by one; of a larger one, a random share."""


@dataclass(frozen=True)
class Range:
    """One stage's multiples, `low` to `high` inclusive."""

    low: int
    high: int
    scale: Literal["log", "linear"]


@dataclass(frozen=True)
class Space:
    """Every schedule a study may sample.

    Attributes:
        ranges: Multiples of each stage, first stage first.
        multiple: Filters of one multiple.
    """

    ranges: tuple[Range, ...]
    multiple: int

    @classmethod
    def of(cls, filters: FiltersConfig) -> Self:
        """The space a configuration describes."""
        return cls(
            tuple(
                Range(math.ceil(low / filters.multiple), high // filters.multiple, stage.scale)
                for (low, high), stage in zip(filters.ranges(), filters.stages, strict=True)
            ),
            filters.multiple,
        )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.ranges)

    @property
    def size(self) -> int:
        """How many schedules there are."""
        return math.prod(r.high - r.low + 1 for r in self.ranges)

    @property
    def smallest(self) -> FilterSchedule:
        """Every stage at its fewest filters."""
        return FilterSchedule(tuple(r.low * self.multiple for r in self.ranges))

    @property
    def largest(self) -> FilterSchedule:
        """Every stage at its most filters."""
        return FilterSchedule(tuple(r.high * self.multiple for r in self.ranges))

    def __contains__(self, schedule: FilterSchedule) -> bool:
        return len(schedule) == self.stages and all(
            f % self.multiple == 0 and r.low <= f // self.multiple <= r.high
            for f, r in zip(schedule.filters, self.ranges, strict=True)
        )

    def dimensions(self) -> Iterator[tuple[str, Range]]:
        """The sampler's dimensions by name, `stage_1` first."""
        return ((f"stage_{number}", stage) for number, stage in enumerate(self.ranges, start=1))

    def params(self, schedule: FilterSchedule) -> dict[str, int]:
        """A schedule as the sampler's dimensions, in multiples."""
        return {
            name: filters // self.multiple
            for (name, _), filters in zip(self.dimensions(), schedule.filters, strict=True)
        }

    def propose(self, budget: Budget, cost_model: CostModel, rng: np.random.Generator) -> FilterSchedule:
        """A random shape, scaled until it just fits the budget.

        The shape is drawn from the ranges (by logarithm where configured); the scaled schedule is clipped to them.

        Raises:
            ConfigError: Even the smallest schedule of the space breaks the budget.
        """
        return self.scaled(self.shapes(rng.random((1, self.stages)))[0], budget, cost_model)

    def shapes(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the unit cube, shape `(n_points, n_stages)`, as real multiples within the ranges."""
        log = np.array([r.scale == "log" for r in self.ranges])
        low, high = self._ends
        start, end = np.where(log, np.log(low), low), np.where(log, np.log(high), high)
        drawn = start + (end - start) * points
        return np.where(log, np.exp(np.where(log, drawn, 0.0)), drawn)

    def scaled(self, shape: NDArray[np.float64], budget: Budget, cost_model: CostModel) -> FilterSchedule:
        """A shape in multiples, shape `(n_stages,)`, scaled up or down until it just fits; clipped to the ranges.

        Raises:
            ConfigError: Even the smallest schedule of the space breaks the budget.
        """
        fitting = self._scaled(shape[None], budget, cost_model)
        if not len(fitting):
            raise ConfigError(no_schedule_message(self, budget, cost_model))
        return FilterSchedule(tuple(map(int, fitting[0])))

    @property
    def _ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low, high = (np.array([getattr(r, end) for r in self.ranges], np.float64) for end in ("low", "high"))
        return low, high

    def _scaled(self, shapes: NDArray[np.float64], budget: Budget, cost_model: CostModel) -> NDArray[np.int64]:
        """See `scaled`; filters of shape `(n_shapes, n_stages)`, or no rows where none fits the budget."""
        low, high = self._ends

        def members(bases: NDArray[np.float64]) -> NDArray[np.int64]:
            multiples = np.floor(np.clip(shapes * bases[:, None], low, high) + 0.5)
            return multiples.astype(np.int64) * self.multiple

        return _largest_within_each(members, len(shapes), budget, cost_model)

    def within(
        self, budget: Budget, cost_model: CostModel, rng: np.random.Generator, at_most: int = 4_000
    ) -> NDArray[np.int64]:
        """Schedules within the budget: all of them where the space can be enumerated, else random proposals.

        Returns:
            Filters, shape `(n_schedules, n_stages)`, in lexicographic order, without repeats.
        """
        bounded = [min(r.high, self._most(stage, budget, cost_model)) for stage, r in enumerate(self.ranges)]
        if any(high < r.low for high, r in zip(bounded, self.ranges, strict=True)):
            return np.empty((0, self.stages), np.int64)
        if math.prod(high - r.low + 1 for high, r in zip(bounded, self.ranges, strict=True)) <= LARGEST_ENUMERATION:
            axes = [np.arange(r.low, high + 1) for high, r in zip(bounded, self.ranges, strict=True)]
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, self.stages) * self.multiple
            return np.asarray(grid[cost_model.table(grid, budget.cost) <= budget.limit])
        shapes = self.shapes(rng.random((at_most, self.stages)))
        return np.unique(self._scaled(shapes, budget, cost_model), axis=0)

    def _most(self, stage: int, budget: Budget, cost_model: CostModel) -> int:
        """The most multiples of one stage that fit the budget while every other stage is at its fewest."""

        def grown(base: float) -> FilterSchedule:
            filters = list(self.smallest.filters)
            filters[stage] = round_to_multiple(max(base, self.ranges[stage].low) * self.multiple, self.multiple)
            return FilterSchedule(tuple(filters))

        best = largest_within(grown, budget, cost_model)
        return best.filters[stage] // self.multiple if best else 0


def _largest_within_each(
    members: Callable[[NDArray[np.float64]], NDArray[np.int64]], count: int, budget: Budget, cost_model: CostModel
) -> NDArray[np.int64]:
    """`rules.largest_within` for many families at once.

    Args:
        members: Filters of shape `(count, n_stages)` for one base of each family, shape `(count,)`.
        count: How many families.
        budget: The limit.
        cost_model: Prices the members.

    Returns:
        The largest member of each family, shape `(count, n_stages)`; no rows when some family has none.
    """

    def fits(bases: NDArray[np.float64]) -> NDArray[np.bool_]:
        return cost_model.table(members(bases), budget.cost) <= budget.limit

    low, high = np.zeros(count), np.ones(count)
    smallest = members(low)
    if not fits(low).all():
        return smallest[:0]
    growing = fits(high)
    while growing.any():
        low, high = np.where(growing, high, low), np.where(growing, 2 * high, high)
        growing &= (high < LARGEST_BASE) & fits(np.where(growing, high, low))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = fits(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return members(low)


def no_schedule_message(space: Space, budget: Budget, cost_model: CostModel) -> str:
    """What to say of a budget that no schedule of the space meets."""
    least = exact_amount(budget.cost, cost_model.costs(space.smallest)[budget.cost])
    return (
        f"budget {budget.in_words} admits no schedule: the smallest, {space.smallest}, costs {least}; "
        f"allow at least that much or lower the stages' low"
    )
