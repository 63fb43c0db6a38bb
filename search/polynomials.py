"""Exact polynomials through measured costs, so that a whole space is priced without building it.

Owns the interpolation and the proof that it may be believed. What a network costs is handed in as a function; nothing
here builds one.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.cost import CostName, Costs, QuadraticCost
from search.schedule import FilterSchedule

_VERIFICATIONS = 4
_ANYWHERE = (1, 64)
"""Multiples of each stage at which a network that can have any filters is verified, besides the study's own."""
_UNBOUNDED = (1, 2**62)

Ranges = tuple[tuple[int, int], ...]
"""Fewest and most multiples of each stage."""


class Measured(NamedTuple):
    """What one network costs.

    Attributes:
        params: See `search.cost.Costs`, as the next two.
        macs: Likewise.
        activations: Likewise.
        moments: Bytes held at each moment of a training step; memory is the largest. Shape `(n_moments,)`.
    """

    params: int
    macs: int
    activations: int
    moments: NDArray[np.int64]

    @property
    def costs(self) -> Costs:
        """The costs."""
        return Costs(self.params, self.macs, self.activations, int(self.moments.max()))


Measure = Callable[[FilterSchedule], Measured]


class Equality(NamedTuple):
    """One stage has as many filters as another, or as something fixed such as the stem."""

    stage: int
    other: int | None
    filters: int | None

    def holds(self, filters: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each schedule of `filters`, shape `(n_schedules, n_stages)`."""
        other = filters[:, self.other] if self.other is not None else self.filters
        return np.asarray(filters[:, self.stage] == other)


@dataclass(frozen=True)
class _Piece:
    """The polynomials of schedules that share a pattern of equalities.

    Attributes:
        stages: The stages whose filters are free; the others' are equal to theirs, or fixed.
        unit: Filters of one unit of the polynomials.
        params: In the units of the free stages, as the others.
        macs: Likewise.
        activations: Likewise.
        moments: Likewise; memory is the largest.
        length: How many moments were measured, most of which can never be the largest.
    """

    stages: tuple[int, ...]
    unit: int
    params: QuadraticCost
    macs: QuadraticCost
    activations: QuadraticCost
    moments: tuple[QuadraticCost, ...]
    length: int

    def tells(self, schedule: FilterSchedule, measured: Measured) -> bool:
        """Whether a schedule was measured to cost this, in a training step of as many operations."""
        return self.length == len(measured.moments) and self.costs(schedule) == measured.costs

    def costs(self, schedule: FilterSchedule) -> Costs:
        free = [schedule.filters[stage] // self.unit for stage in self.stages]
        return Costs(
            self.params(free), self.macs(free), self.activations(free), max(moment(free) for moment in self.moments)
        )

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        if not self.stages:
            return np.full(len(filters), self.costs(_schedules(filters[:1])[0])[cost], np.int64)
        free = filters[:, list(self.stages)] // self.unit
        if cost != "memory":
            polynomial: QuadraticCost = getattr(self, cost)
            return polynomial.table(free)
        tables = (moment.table(free) for moment in self.moments)
        largest = next(tables)
        for table in tables:
            np.maximum(largest, table, out=largest)
        return largest


@dataclass(frozen=True)
class FittedCostModel:
    """Exact polynomials in the filters: any size priced in microseconds, nothing built.

    Equal filters may change a network: a shortcut is projected only between different ones. Then there is one set of
    polynomials for every pattern of equalities, fitted when a schedule first shows it.

    Attributes:
        measure: What a schedule costs.
        multiple: What filters are multiples of.
        avoided: Multiples that polynomials are not fitted at where there is room, since something fixed is as wide.
        sampled: Where they are fitted.
        equalities: Those that change the network.
    """

    measure: Measure = field(repr=False, compare=False)
    multiple: int
    avoided: frozenset[int]
    sampled: Ranges
    equalities: tuple[Equality, ...] = ()
    _pieces: dict[tuple[bool, ...], _Piece | None] = field(default_factory=dict, repr=False, compare=False)

    def costs(self, schedule: FilterSchedule) -> Costs:
        """See `search.cost.CostModel`."""
        filters = _exact([schedule.filters])
        piece = self._piece(self._patterns(filters)[0], filters[0])
        if piece is None or any(f % piece.unit for f in schedule.filters):
            return self.measure(schedule).costs
        return piece.costs(schedule)

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        """See `search.cost.CostModel`."""
        table = np.empty(len(filters), np.int64)
        patterns, which = np.unique(self._patterns(filters), axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            rows = np.flatnonzero(which.ravel() == number)
            piece = self._piece(pattern, filters[rows[0]])
            if piece is None or (filters[rows] % piece.unit).any():
                table[rows] = [self.costs(schedule)[cost] for schedule in _schedules(filters[rows])]
            else:
                table[rows] = piece.table(filters[rows], cost)
        return table

    def agrees(self, schedules: Iterable[FilterSchedule]) -> bool:
        """Whether every schedule has polynomials, and they tell what is measured."""
        for schedule in schedules:
            filters = _exact([schedule.filters])
            piece = self._piece(self._patterns(filters)[0], filters[0])
            if piece is None or not piece.tells(schedule, self.measure(schedule)):
                return False
        return True

    def _patterns(self, filters: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which equalities hold, shape `(n_schedules, n_equalities)`."""
        held = [equality.holds(filters) for equality in self.equalities]
        return np.stack(held, axis=1) if held else np.zeros((len(filters), 0), np.bool_)

    def _piece(self, pattern: NDArray[np.bool_], filters: NDArray[np.int64]) -> _Piece | None:
        """The polynomials of a pattern, which these filters show; None where there are none."""
        key = tuple(pattern.tolist())
        if key not in self._pieces:
            held = list(itertools.compress(self.equalities, key))
            self._pieces[key] = self._fit(_leaders(held, len(filters)), filters)
        return self._pieces[key]

    def _fit(self, leaders: list[int | None], filters: NDArray[np.int64]) -> _Piece | None:
        led = sorted({leader for leader in leaders if leader is not None})
        common = tuple(_common(self.sampled[s] for s, lead in enumerate(leaders) if lead == leader) for leader in led)
        if any(low > high for low, high in common):
            return None
        windows = dict(zip(led, _windows(common, self.avoided), strict=True))
        free = tuple(stage for stage in led if len(windows[stage]) > 1)
        values: dict[tuple[int, ...], NDArray[np.int64]] = {}
        for moved in _sample_points([len(windows[stage]) for stage in free]):
            moves = dict(zip(free, moved, strict=True))
            given = {stage: window[moves.get(stage, 0)] * self.multiple for stage, window in windows.items()}
            full = [int(f) if lead is None else given[lead] for f, lead in zip(filters, leaders, strict=True)]
            measured = self.measure(FilterSchedule(tuple(full)))
            values[moved] = np.array([*measured[:3], *measured.moments], np.int64)
        if len({len(value) for value in values.values()}) > 1:
            return None
        fitted = _interpolate(values, [windows[stage][0] for stage in free], self.multiple)
        if fitted is None:
            return None
        unit, (params, macs, activations, *moments) = fitted
        return _Piece(free, unit, params, macs, activations, _undominated(moments), len(moments))


def fit_polynomials(
    measure: Measure, multiple: int, ranges: Ranges, fixed: Collection[int], *, anywhere: bool
) -> FittedCostModel | None:
    """Polynomials in exact arithmetic, believed only where they tell what fresh builds cost.

    Those are random schedules drawn with a fixed seed from the ranges, by their logarithm; the smallest and the
    largest; each stage at its most with the others at their fewest; and schedules as uniform as the ranges allow, of
    every number that something fixed in the network has, where shortcuts may need no projection.

    Args:
        measure: What a schedule costs.
        multiple: What filters are multiples of; every schedule measured has such.
        ranges: Fewest and most multiples of each stage of the schedules to be priced.
        fixed: Channels found in the network whatever the filters.
        anywhere: Whether schedules outside the ranges may be measured too.

    Returns:
        None when costs are no polynomials of degree two with whole coefficients, in filters or in multiples.
    """
    stages = len(ranges)
    avoided = frozenset(filters // multiple for filters in fixed if filters % multiple == 0)
    sampled = (_UNBOUNDED,) * stages if anywhere else ranges
    regions = [(_ANYWHERE,) * stages, ranges] if anywhere else [ranges]
    smooth = FittedCostModel(measure, multiple, avoided, sampled)
    rng = np.random.default_rng(0)
    draws = [_random(rng, region, avoided) for region in regions for _ in range(_VERIFICATIONS // len(regions))]
    random = [_times(multiples, multiple) for multiples in draws if multiples is not None]
    if not smooth.agrees(random):
        return None
    levels = {_level(m, region) for region in regions for m in (*itertools.chain(*region), *avoided)}
    ends = [_times(multiples, multiple) for multiples in sorted(levels.union(_raised(ranges)))]
    if smooth.agrees(ends):
        return smooth
    # In random schedules all stages differ from each other and from what is fixed; equalities may explain the rest.
    every = [Equality(i, j, None) for i, j in itertools.combinations(range(stages), 2)]
    every += [Equality(stage, None, m * multiple) for stage in range(stages) for m in sorted(avoided)]
    tried = [
        (equality, _equal(schedule, equality, sampled, multiple)) for equality in every for schedule in random[:2]
    ]
    probes = [(equality, probe) for equality, probe in tried if probe is not None]
    jumps = {equality for equality, probe in probes if not smooth.agrees([probe])}
    equalities = tuple(equality for equality in every if equality in jumps)
    jumping = FittedCostModel(measure, multiple, avoided, sampled, equalities)
    return jumping if jumping.agrees([*random, *ends, *(probe for _, probe in probes)]) else None


def _random(rng: np.random.Generator, ranges: Ranges, avoided: Collection[int]) -> tuple[int, ...] | None:
    """Multiples of a schedule whose stages differ, none of a multiple to be avoided; None where there seems none."""
    low, high = np.array(ranges, np.float64).T
    for _ in range(100):
        drawn = np.clip(np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1)))), low, high).astype(np.int64)
        multiples = tuple(int(m) for m in drawn)
        if len(set(multiples)) == len(multiples) and not set(multiples) & set(avoided):
            return multiples
    return None


def _level(multiples: int, ranges: Ranges) -> tuple[int, ...]:
    """As many multiples in every stage, or the nearest in its range."""
    return tuple(min(max(multiples, low), high) for low, high in ranges)


def _raised(ranges: Ranges) -> list[tuple[int, ...]]:
    """One stage at its most and the others at their fewest, for each stage."""
    return [
        tuple(high if stage == raised else low for stage, (low, high) in enumerate(ranges))
        for raised in range(len(ranges))
    ]


def _times(multiples: Iterable[int], multiple: int) -> FilterSchedule:
    return FilterSchedule(tuple(m * multiple for m in multiples))


def _equal(schedule: FilterSchedule, equality: Equality, ranges: Ranges, multiple: int) -> FilterSchedule | None:
    """The schedule with an equality brought about; None where the ranges do not allow that."""
    stages = [equality.stage] if equality.other is None else [equality.stage, equality.other]
    low, high = _common(ranges[stage] for stage in stages)
    wanted = (equality.filters or schedule.filters[equality.other or 0]) // multiple
    if low > high or (equality.other is None and not low <= wanted <= high):
        return None
    filters = list(schedule.filters)
    for stage in stages:
        filters[stage] = min(max(wanted, low), high) * multiple
    return FilterSchedule(tuple(filters))


def _common(ranges: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """What ranges share, the first above the second where they share nothing."""
    lows, highs = zip(*ranges, strict=True)
    return max(lows), min(highs)


def _leaders(held: Sequence[Equality], stages: int) -> list[int | None]:
    """For each stage the first one whose filters it must have, possibly itself; None where they are fixed."""
    leaders: list[int | None] = list(range(stages))
    for equality in held:
        if equality.other is not None:
            one, other = leaders[equality.stage], leaders[equality.other]
            leaders = [one if leader == other else leader for leader in leaders]
    for equality in held:
        if equality.other is None:
            one = leaders[equality.stage]
            leaders = [None if leader == one else leader for leader in leaders]
    return leaders


def _windows(ranges: Ranges, avoided: Collection[int]) -> list[range]:
    """Where to sample: three multiples in a row of each range, or all of a narrower one.

    Where there is room, no two windows share a multiple, and none has one to be avoided.
    """
    taken = set(avoided)
    windows: dict[int, range] = {}
    for stage in sorted(range(len(ranges)), key=lambda stage: ranges[stage][1]):
        low, high = ranges[stage]
        width = min(3, high - low + 1)
        starts = range(low, high - width + 2)
        start = next((s for s in starts if taken.isdisjoint(range(s, s + width))), low)
        windows[stage] = range(start, start + width)
        taken.update(windows[stage])
    return [windows[stage] for stage in range(len(ranges))]


def _sample_points(widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Points that determine every coefficient: base, steps, double steps where there are three multiples, pairs."""
    stages = range(len(widths))
    moves: list[tuple[int, ...]] = [(), *((i,) for i in stages), *((i, i) for i in stages if widths[i] > 2)]
    moves += itertools.combinations(stages, 2)
    return [tuple(move.count(i) for i in stages) for move in moves]


def _interpolate(
    values: dict[tuple[int, ...], NDArray[np.int64]], base: list[int], multiple: int
) -> tuple[int, list[QuadraticCost]] | None:
    """The polynomials of degree two through values at `_sample_points` moved to `base`.

    Along a stage without a double step they are lines: it has but two multiples.

    Args:
        values: Of each point, shape `(n_quantities,)`.
        base: Multiples of each variable at the first point.
        multiple: Filters of one multiple.

    Returns:
        Filters of one unit, 1 where that gives whole coefficients and else a multiple, and the polynomials in such
        units; None where not even multiples give whole ones.
    """
    stages = len(base)
    unit_moves = [tuple(int(i == j) for j in range(stages)) for i in range(stages)]
    origin = values[(0,) * stages]
    step = np.array([values[move] - origin for move in unit_moves], np.int64).reshape(stages, len(origin))
    curve = np.zeros_like(step)
    for i, move in enumerate(unit_moves):
        double = values.get(tuple(2 * m for m in move))
        if double is not None:
            curve[i] = double - origin - 2 * step[i]
    if (curve % 2).any():
        return None
    upper = np.zeros((stages, stages, len(origin)), np.int64)
    upper[range(stages), range(stages)] = curve // 2
    for i, j in itertools.combinations(range(stages), 2):
        both = tuple(a + b for a, b in zip(unit_moves[i], unit_moves[j], strict=True))
        upper[i, j] = values[both] - origin - step[i] - step[j]
    # p(n) = origin + slope n + n' upper n with n = multiples - base, written out in the multiples
    start = np.array(base, np.int64)
    slope = step - curve // 2
    turned = np.einsum("ijk,j->ik", upper, start) + np.einsum("ijk,i->jk", upper, start)
    linear = slope - turned
    constant = origin - start @ slope + np.einsum("ijk,i,j->k", upper, start, start)
    unit = multiple
    if not (linear % multiple).any() and not (upper % multiple**2).any():
        unit, linear, upper = 1, linear // multiple, upper // multiple**2
    return unit, [
        QuadraticCost(
            int(constant[k]),
            tuple(int(c) for c in linear[:, k]),
            tuple(tuple(int(c) for c in row) for row in upper[:, :, k]),
        )
        for k in range(len(origin))
    ]


def _undominated(moments: Sequence[QuadraticCost]) -> tuple[QuadraticCost, ...]:
    """Without those that no schedule can make the largest, another having no coefficient below theirs."""
    rows = np.array([[m.constant, *m.linear, *itertools.chain(*m.quadratic)] for m in moments], np.int64)
    rows, first = np.unique(rows, axis=0, return_index=True)
    kept = [k for k, row in enumerate(rows) if ((rows >= row).all(axis=1)).sum() == 1]
    return tuple(moments[k] for k in sorted(first[kept]))


def _exact(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Filters as an array, of any size."""
    return np.array(rows, object)


def _schedules(filters: NDArray[np.int64]) -> list[FilterSchedule]:
    return [FilterSchedule(tuple(int(f) for f in row)) for row in filters]
