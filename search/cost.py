"""What a schedule costs, known before any training.

Owns the four costs, budgets on them, and cost models as values: schedules in, whole numbers out. How a model is read
off a network is the business of `pricing`; nothing here imports torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from search.schedule import FilterSchedule

CostName = Literal["params", "macs", "activations", "memory"]
COST_NAMES: tuple[CostName, ...] = get_args(CostName)

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
# A comma or underscore must set off thousands, lest the decimal comma of 1,5k be read as 15k.
_LIMIT = r"-?(?:[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]{1,30})(?:\.[0-9]{1,30})?"
_BUDGET = re.compile(rf"\s*([a-z]+)\s*<=\s*({_LIMIT})\s*([A-Za-z]*)\s*")
LARGEST_LIMIT = 2**62
"""The highest limit a budget may have: every cost beyond it can be told from it in 64 bits."""


@dataclass(frozen=True)
class Costs:
    """The costs of one candidate; None for a cost that a table in training's place does not tell.

    Attributes:
        params: Trainable parameters.
        macs: Multiply-adds of convolutions and linear layers for one image.
        activations: Outputs of all convolutions for one image, as pycls counts them (Radosavovic 2020, 2003.13678).
        memory: Predicted peak bytes while training at the study's batch size.
    """

    params: int | None
    macs: int | None
    activations: int | None
    memory: int | None

    def __getitem__(self, cost: CostName) -> int:
        """A cost that is known.

        Raises:
            ValueError: It is not.
        """
        value: int | None = getattr(self, cost)
        if value is None:
            msg = f"{cost} is not known here; known are {', '.join(self.known)}"
            raise ValueError(msg)
        return value

    @property
    def known(self) -> tuple[CostName, ...]:
        """The costs that are known, in the order of `COST_NAMES`."""
        return tuple(cost for cost in COST_NAMES if getattr(self, cost) is not None)


@dataclass(frozen=True, order=True)
class Budget:
    """A limit on one cost, written `params <= 1500`; memory in bytes, or with KiB, MiB, GiB."""

    cost: CostName
    limit: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form.

        Raises:
            ValueError: No cost of `COST_NAMES`, no `<=`, an unknown unit, bytes of anything but memory, or a limit
                below 1 or above `LARGEST_LIMIT`.
        """
        match = _BUDGET.fullmatch(text)
        units = _UNITS | _BYTES if match and match[1] == "memory" else _UNITS
        if not match or match[1] not in COST_NAMES or match[3] not in units:
            msg = (
                f"{text!r} is no budget; write COST <= LIMIT with a cost of {', '.join(COST_NAMES)} and a limit "
                "such as 1500 or 40k, of memory also 2 MiB or, in a configuration, up to 100 % of the device's"
            )
            raise ValueError(msg)
        limit = int(Fraction(re.sub("[_,]", "", match[2])) * units[match[3]])
        if limit < 1:
            msg = f"{text!r} allows nothing; a budget's limit is at least 1"
            raise ValueError(msg)
        if limit > LARGEST_LIMIT:
            msg = f"{text!r} limits nothing that can be counted; a budget's limit is at most 2^62, {LARGEST_LIMIT:,}"
            raise ValueError(msg)
        return cls(match[1], limit)

    def __str__(self) -> str:
        return f"{self.cost} <= {self.limit}"

    @property
    def in_words(self) -> str:
        """The budget for people, exact: `memory <= 1.0 MiB`. `str` gives the form of files, in bytes."""
        return f"{self.cost} <= {exact_amount(self.cost, self.limit)}" if self.cost == "memory" else str(self)

    @property
    def folder(self) -> str:
        """The budget's name as a folder, `params-1500`."""
        return f"{self.cost}-{self.limit}"

    def admits(self, costs: Costs) -> bool:
        """Whether a candidate of these costs is within the budget."""
        return costs[self.cost] <= self.limit


def amount(cost: CostName, value: int) -> str:
    """A cost for people, without its name: binary units of bytes, counts with separators, huge ones as powers."""
    if cost != "memory":
        return f"{value:,}" if value < 10**12 else f"{value:.2e}"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= 10 * size:
            return f"{value / size:,.1f} {unit}"
        if value >= size:
            return f"{value / size:.2f}".removesuffix("0") + f" {unit}"
    return f"{value} B"


def exact_amount(cost: CostName, value: int) -> str:
    """A cost for people, exact: as `amount` has it, with the bytes or the whole count where that would lose them."""
    if cost != "memory":
        return f"{value:,}"
    said = amount(cost, value)
    number, unit = said.split()
    exact = Fraction(number.replace(",", "")) * _BYTES[unit] == value
    return said if exact else f"{said} ({value:,} bytes)"


class CostModel(Protocol):
    """Prices schedules: one, or a whole space at once."""

    def costs(self, schedule: FilterSchedule) -> Costs:
        """All costs of one schedule, exact for sizes of any magnitude."""
        ...

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        """One cost of many schedules.

        Args:
            filters: Shape `(n_schedules, n_stages)`.
            cost: Which.

        Returns:
            Shape `(n_schedules,)`; any value above `LARGEST_LIMIT`, hence beyond every budget, for a cost above it.
        """
        ...


@dataclass(frozen=True)
class QuadraticCost:
    """A polynomial of degree two in the filters with whole coefficients.

    `constant + sum_i linear[i] f_i + sum_{i<=j} quadratic[i][j] f_i f_j`, evaluated at whole numbers.
    """

    constant: int
    linear: tuple[int, ...]
    quadratic: tuple[tuple[int, ...], ...]

    def __call__(self, filters: Sequence[int]) -> int:
        """The cost of one schedule in Python integers, which cannot overflow."""
        total = self.constant + sum(a * f for a, f in zip(self.linear, filters, strict=True))
        for i, row in enumerate(self.quadratic):
            total += sum(row[j] * filters[i] * filters[j] for j in range(i, len(filters)))
        return total

    def table(self, filters: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cost of every row of `filters`, shape `(n_schedules, n_stages)`; 2^63-1 for one above `LARGEST_LIMIT`.

        Exact below: sums modulo 2^64 are right wherever the result is small, whatever overflows on the way.
        """
        near = self._sum(filters.astype(np.float64), np.float64)
        exact = self._sum(filters.astype(np.int64), np.int64)
        return np.where(np.abs(near) > LARGEST_LIMIT, np.iinfo(np.int64).max, exact)

    def _sum(self, filters: NDArray[Any], kind: type[np.float64 | np.int64]) -> NDArray[Any]:
        linear, upper = np.array(self.linear, kind), np.array(self.quadratic, kind)
        return np.asarray(self.constant + filters @ linear + ((filters @ upper) * filters).sum(axis=1))
