"""Truths to try samplers and the surrogate on: NATS-Bench's size table, and planted surfaces of other shapes."""

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from search.cost import Budget, CostModel, Costs, QuadraticCost
from search.schedule import FilterSchedule
from search.space import Range, Space

FOLDER = Path(os.environ.get("FILTER_SEARCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
NATS = FOLDER / "nats_sss_cifar10_90ep.csv"
NATS_NOISE, PLANTED_NOISE = 0.002, 0.005


@dataclass(frozen=True)
class Truth:
    """A space under one budget, what a run scores there and what recommendations are judged by.

    `measured` and `smooth` take filters of shape `(m, n_stages)` and return fractions of shape `(m,)`; they differ on
    a table only, whose entries are one training each.
    """

    name: str
    space: Space
    cost_model: CostModel
    budget: Budget
    measured: Callable
    smooth: Callable
    noise: float

    @cached_property
    def pool(self):
        return self.space.within(self.budget, self.cost_model, np.random.default_rng(0))

    @cached_property
    def best(self):
        return float(self.smooth(self.pool).max())

    def regret(self, filters):
        """In points."""
        return 100 * (self.best - float(self.smooth(np.array([filters]))[0]))

    def run(self, filters, rng):
        return float(np.clip(self.measured(np.array([filters]))[0] + self.noise * rng.standard_normal(), 0, 1))


def planted() -> Iterator[Truth]:
    """Three stages on 8x8 images of one channel under a MACs budget, the best schedules away from doubling."""
    space = Space((Range(2, 64, "log"),) * 3, 1)
    for name, surface in (("ridge", ridge), ("powers", powers), ("narrowest", narrowest)):
        yield Truth(name, space, PlainCosts(), Budget("macs", 40_000), surface, surface, PLANTED_NOISE)


def ridge(filters):
    """The error falls as a power of size and is least at a growth ratio of 1.3."""
    x = np.log2(filters)
    bend = ((np.diff(x, axis=1) - np.log2(1.3)) ** 2).sum(axis=1)
    return _accuracy(0.12 * np.exp2(-0.7 * (x.mean(axis=1) - 2)) * (1 + 0.12 * bend))


def powers(filters):
    """Every stage removes errors of its own, by its own power of its filters."""
    f = filters / 4.0
    return _accuracy(0.015 + 0.05 / f[:, 0] + 0.08 / np.sqrt(f[:, 1]) + 0.06 * f[:, 2] ** -1.2)


def narrowest(filters):
    """The narrowest stage, for its part, decides: nearly a kink, and far from anything quadratic."""
    return _accuracy(0.02 + 0.1 * ((filters / np.array([8.0, 6.0, 12.0])) ** -4.0).sum(axis=1) ** 0.25)


def _accuracy(error):
    return np.clip(1 - error, 0.02, 0.998)


class PlainCosts:
    """Costs of three plain stages of 3x3 convolutions on 8x8 images of one channel, ten classes."""

    _macs = QuadraticCost(0, (576, 0, 10), ((0, 144, 0), (0, 0, 36), (0, 0, 0)))

    def costs(self, schedule: FilterSchedule) -> Costs:
        return Costs(*[self._macs(schedule.filters)] * 4)

    def table(self, filters, cost):
        return self._macs.table(filters)


@dataclass(frozen=True)
class Nats:
    """The table: five stages in multiples of 8 from 8 to 64, one training each, 90 epochs on CIFAR-10."""

    filters: np.ndarray
    accuracy: np.ndarray
    priced: dict

    @classmethod
    def read(cls) -> "Nats":
        with NATS.open(newline="") as file:
            rows = list(csv.DictReader(file))
        order = np.array([[int(f) for f in row["channels"].split(":")] for row in rows])
        names = {"params": "params", "macs": "flops_macs", "activations": "conv_out_activations"}
        priced = {cost: np.array([int(float(row[name])) for row in rows]) for cost, name in names.items()}
        return cls(order, np.array([float(row["cifar10_test_acc_90ep"]) for row in rows]) / 100, priced)

    @cached_property
    def _index(self):
        index = np.full((9,) * 5, -1)
        index[tuple(self.filters.T // 8)] = np.arange(len(self.filters))
        return index

    def row(self, filters):
        return self._index[tuple(np.asarray(filters).T // 8)]

    @cached_property
    def smooth(self):
        """The quartic polynomial in log2 filters fitted to all rows, at every row."""
        x = (np.log2(self.filters) - 4.5) / 1.5
        terms = [x[:, list(c)].prod(axis=1) for k in range(5) for c in combinations_with_replacement(range(5), k)]
        design = np.stack(terms, axis=1)
        return design @ np.linalg.lstsq(design, self.accuracy, rcond=None)[0]

    def costs(self, schedule: FilterSchedule) -> Costs:
        if max(schedule.filters) > 64:  # outside the table, where bounds are looked for: more than any budget allows
            return Costs(*[10**12] * 4)
        row = self.row(schedule.filters)
        return Costs(*(int(self.priced[cost][row]) for cost in ("params", "macs", "activations")), memory=1)

    def table(self, filters, cost):
        return self.priced[cost][self.row(filters)]

    def truths(self) -> Iterator[Truth]:
        """The budgets of 16-32-32-64-64."""
        space = Space((Range(1, 8, "log"),) * 5, 8)
        rule = FilterSchedule((16, 32, 32, 64, 64))
        for cost in ("macs", "params"):
            budget = Budget(cost, self.costs(rule)[cost])
            yield Truth(
                f"NATS, {cost}",
                space,
                self,
                budget,
                lambda filters: self.accuracy[self.row(filters)],
                lambda filters: self.smooth[self.row(filters)],
                NATS_NOISE,
            )
