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
_VERIFIED_MULTIPLES = 64


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
        avoided: Multiples that polynomials are not fitted at, since something fixed is as wide.
        equalities: Those that change the network.
    """

    measure: Measure = field(repr=False, compare=False)
    multiple: int
    avoided: frozenset[int]
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
        free = sorted({leader for leader in leaders if leader is not None})
        base = _apart(len(free), self.avoided)
        values = []
        for moved in _sample_points(len(free)):
            given = {stage: (b + m) * self.multiple for stage, b, m in zip(free, base, moved, strict=True)}
            full = [int(f) if lead is None else given[lead] for f, lead in zip(filters, leaders, strict=True)]
            measured = self.measure(FilterSchedule(tuple(full)))
            values.append(np.array([*measured[:3], *measured.moments], np.int64))
        if len({len(value) for value in values}) > 1:
            return None
        fitted = _interpolate(np.stack(values), base, self.multiple)
        if fitted is None:
            return None
        unit, (params, macs, activations, *moments) = fitted
        return _Piece(tuple(free), unit, params, macs, activations, _undominated(moments), len(moments))


def fit_polynomials(measure: Measure, multiple: int, stages: int, fixed: Collection[int]) -> FittedCostModel | None:
    """Polynomials in exact arithmetic, believed only where they tell what fresh builds cost.

    Those are random schedules drawn with a fixed seed, and uniform ones: of one multiple, of many, and of every number
    that something fixed in the network has, where shortcuts may need no projection.

    Args:
        measure: What a schedule costs.
        multiple: What filters are multiples of; every schedule measured has such.
        stages: Stages of the schedules to be priced.
        fixed: Channels found in the network whatever the filters.

    Returns:
        None when costs are no polynomials of degree two with whole coefficients, in filters or in multiples.
    """
    rng = np.random.default_rng(0)
    avoided = frozenset(filters // multiple for filters in fixed if filters % multiple == 0)
    random = [_random(rng, multiple, stages, avoided) for _ in range(_VERIFICATIONS)]
    smooth = FittedCostModel(measure, multiple, avoided)
    if not smooth.agrees(random):
        return None
    uniform = [FilterSchedule((m * multiple,) * stages) for m in (1, _VERIFIED_MULTIPLES, *sorted(avoided))]
    if smooth.agrees(uniform):
        return smooth
    # In random schedules all stages differ from each other and from what is fixed; equalities may explain the rest.
    every = [Equality(i, j, None) for i, j in itertools.combinations(range(stages), 2)]
    every += [Equality(stage, None, m * multiple) for stage in range(stages) for m in sorted(avoided)]
    probes = [(equality, _equal(schedule, equality)) for equality in every for schedule in random[:2]]
    jumps = {equality for equality, probe in probes if not smooth.agrees([probe])}
    jumping = FittedCostModel(measure, multiple, avoided, tuple(equality for equality in every if equality in jumps))
    return jumping if jumping.agrees([*random, *uniform, *(probe for _, probe in probes)]) else None


def _random(rng: np.random.Generator, multiple: int, stages: int, avoided: Collection[int]) -> FilterSchedule:
    """All stages different, and none of a multiple to be avoided."""
    allowed = [m for m in range(1, _VERIFIED_MULTIPLES + 1) if m not in avoided]
    return FilterSchedule(tuple(int(m) * multiple for m in rng.choice(allowed, stages, replace=False)))


def _equal(schedule: FilterSchedule, equality: Equality) -> FilterSchedule:
    filters = list(schedule.filters)
    filters[equality.stage] = equality.filters or filters[equality.other or 0]
    return FilterSchedule(tuple(filters))


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


def _apart(count: int, avoided: Collection[int]) -> list[int]:
    """Where to sample: windows of three multiples each, none shared and none with a multiple to be avoided."""
    windows = (start for start in itertools.count(1, 3) if not {start, start + 1, start + 2} & set(avoided))
    return list(itertools.islice(windows, count))


def _sample_points(stages: int) -> list[tuple[int, ...]]:
    """Points at 0, 1 and 2 that determine every coefficient, in order: base, steps, double steps, pairs."""
    moves: list[tuple[int, ...]] = [(), *((i,) for i in range(stages)), *((i, i) for i in range(stages))]
    moves += itertools.combinations(range(stages), 2)
    return [tuple(move.count(i) for i in range(stages)) for move in moves]


def _interpolate(values: NDArray[np.int64], base: list[int], multiple: int) -> tuple[int, list[QuadraticCost]] | None:
    """The polynomials of degree two through values at `_sample_points` moved to `base`.

    Args:
        values: Shape `(n_points, n_quantities)`.
        base: Multiples of each variable at the first point.
        multiple: Filters of one multiple.

    Returns:
        Filters of one unit, 1 where that gives whole coefficients and else a multiple, and the polynomials in such
        units; None where not even multiples give whole ones.
    """
    stages = len(base)
    origin = values[0]
    step = values[1 : stages + 1] - origin
    double = values[stages + 1 : 2 * stages + 1] - origin
    curve = double - 2 * step
    if (curve % 2).any():
        return None
    upper = np.zeros((stages, stages, len(origin)), np.int64)
    upper[range(stages), range(stages)] = curve // 2
    for pair, (i, j) in enumerate(itertools.combinations(range(stages), 2)):
        upper[i, j] = values[2 * stages + 1 + pair] - origin - step[i] - step[j]
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
