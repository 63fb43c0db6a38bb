"""Known accuracies in training's place, so that all that decides can be tried on truths that are known.

Owns what is known of a schedule (a table of trained networks, or a planted surface), how a run is drawn from it, and
what a table's schedules cost. Reading files is the business of `tablefile`. Knows nothing of torch or storage.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from search.cost import COST_NAMES, CostModel, CostName, Costs
from search.errors import ConfigError
from search.evaluate import Fidelity, OnEpoch, Run, Scored, Split
from search.schedule import FilterSchedule
from search.tableconfig import SurfaceConfig

UNAFFORDABLE = 10**40
"""What a schedule costs that no row of a table is as wide as: more than any budget can allow."""

_REFERENCE_LOG2 = 4.0  # SurfaceConfig.accuracy is that of 16 filters
_SPLITS: tuple[Split, ...] = get_args(Split)
# First words of the entropy, so that no two kinds of draw share a stream whatever the seeds.
_NOISE_STREAM, _SPREAD_STREAM, _COLUMNS_STREAM = 1, 2, 3


@dataclass(frozen=True)
class Surface:
    """A planted truth: the odds of an error, quadratic in the log2 of the stages' ratios and linear in size.

    `log2(accuracy / error) = level + size_gain * size - strength * sum_i (log2(ratio_i) - log2(best_ratio))^2`, where
    size is the mean log2 of the filters, and `level` makes the accuracy at 16 filters and the best ratio the one
    configured. At any one size the best schedule grows by `best_ratio` throughout; the best within a budget is found
    by looking at all of them, exactly and without noise.

    It flatters whatever models the logit of accuracy as smooth in log filters: real networks do not oblige.
    """

    config: SurfaceConfig

    @property
    def name(self) -> str:
        """What people call it."""
        return "a planted surface"

    @property
    def fingerprint(self) -> str:
        """Its text; all there is to it stands in the configuration."""
        return str(self.config)

    def accuracies(self, filters: NDArray[np.int64]) -> NDArray[np.float64]:
        """True accuracy of every schedule, fractions.

        Args:
            filters: Shape `(n_schedules, n_stages)`.

        Returns:
            Shape `(n_schedules,)`.
        """
        planted, widths = self.config, np.log2(filters)
        off = np.diff(widths, axis=1) - np.log2(planted.best_ratio)
        odds = np.log2(planted.accuracy / (1 - planted.accuracy))
        odds = odds + planted.size_gain * (widths.mean(axis=1) - _REFERENCE_LOG2)
        odds = odds - planted.strength * (off**2).sum(axis=1)
        return np.asarray(1 / (1 + np.exp2(-odds)))


@dataclass(frozen=True, eq=False)
class Table:
    """Trained networks: schedules, their accuracies and costs.

    Attributes:
        name: What people call it.
        filters: Shape `(n_schedules, n_stages)`, no two rows equal.
        scores: Accuracy of every schedule in every column (a training seed each), fractions; shape
            `(n_schedules, n_columns)`.
        costs: The costs told, shape `(n_schedules,)` each.
        fingerprint: SHA-256 of the file.
    """

    name: str
    filters: NDArray[np.int64]
    scores: NDArray[np.float64]
    costs: Mapping[CostName, NDArray[np.int64]]
    fingerprint: str

    @cached_property
    def _row(self) -> dict[tuple[int, ...], int]:
        return {tuple(filters): row for row, filters in enumerate(self.filters.tolist())}

    def row(self, schedule: FilterSchedule) -> int | None:
        """Where a schedule stands; None where it does not."""
        return self._row.get(schedule.filters)

    def rows(self, filters: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where every schedule stands.

        Args:
            filters: Shape `(n_schedules, n_stages)`.

        Returns:
            Shape `(n_schedules,)`.

        Raises:
            ConfigError: One is not in the table.
        """
        rows = [self._row.get(tuple(each), -1) for each in filters.tolist()]
        if -1 in rows:
            schedule = FilterSchedule(tuple(filters[rows.index(-1)].tolist()))
            msg = f"{schedule} is not in {self.name}; ask for schedules of the table only"
            raise ConfigError(msg)
        return np.array(rows, np.int64)

    def accuracies(self, filters: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean accuracy over the columns; see `Surface.accuracies`, and `rows` for what it raises."""
        return np.asarray(self.scores[self.rows(filters)].mean(axis=1))


Truth = Table | Surface


@dataclass(frozen=True)
class Noise:
    """Runs as the known accuracy plus normal noise, cut to [0, 1].

    A run is a function of its schedule, seed and split alone. Where accuracies are within a few sd of 0 or 1, the cut
    makes the mean of runs differ from the known accuracy.

    Attributes:
        sd: Of a run, a fraction.
        spread: A schedule's own sd is `sd` times a factor between 1 / spread and spread, drawn log-uniformly from the
            schedule, the same for ever: training seeds do not move all schedules alike.
    """

    sd: float
    spread: float = 1.0

    def score(self, truth: Truth, schedule: FilterSchedule, seed: int, score_on: Split) -> float:
        """A run's accuracy, a fraction."""
        known = float(truth.accuracies(np.array([schedule.filters], np.int64))[0])
        rng = np.random.default_rng([_NOISE_STREAM, _SPLITS.index(score_on), seed, *schedule.filters])
        return float(np.clip(known + self.sd_of(schedule) * rng.standard_normal(), 0.0, 1.0))

    def sd_of(self, schedule: FilterSchedule) -> float:
        """Sd of a schedule's runs before the cut, a fraction."""
        if self.spread == 1.0:
            return self.sd
        exponent = np.random.default_rng([_SPREAD_STREAM, *schedule.filters]).uniform(-1, 1)
        return float(self.sd * self.spread**exponent)


@dataclass(frozen=True)
class Columns:
    """Runs as the columns of a table, drawn without replacement; a run's seed is the number of its column.

    Columns serve either the search or the confirmation and never both, so no score that chose a challenger judges it.

    Attributes:
        search: Numbers of the columns whose scores the search sees, as validation.
        confirm: Numbers of those that confirmation sees, as test.
    """

    search: tuple[int, ...]
    confirm: tuple[int, ...]

    @classmethod
    def split(cls, columns: int, for_search: int, for_confirmation: int, seed: int) -> "Columns":
        """A random share of the columns for the search, the others for confirmation.

        Args:
            columns: How many there are.
            for_search: Seeds of each trial; it gets so many.
            for_confirmation: The last planned look.
            seed: Settles which.

        Raises:
            ConfigError: There are too few.
        """
        if columns < for_search + for_confirmation:
            msg = (
                f"the table has {columns} accuracy columns, and no run is used twice: search.seeds_per_trial "
                f"{for_search} and the last of confirm.looks, {for_confirmation}, may sum to {columns} at most"
            )
            raise ConfigError(msg)
        drawn = np.random.default_rng([_COLUMNS_STREAM, seed]).permutation(columns).tolist()
        return cls(tuple(drawn[:for_search]), tuple(drawn[for_search:]))

    def seeds(self, score_on: Split, first: int, count: int) -> list[int]:
        """Columns of runs `first` to `first + count - 1` of a schedule.

        The search's columns come round again: a repeated trial repeats its runs, under equal seeds.

        Raises:
            ConfigError: More runs than confirmation has columns.
        """
        if score_on == "validation":
            return [self.search[index % len(self.search)] for index in range(first, first + count)]
        if first + count > len(self.confirm):
            msg = (
                f"confirmation run {first + count} of a schedule came; the table has {len(self.confirm)} accuracy "
                "columns that the search did not see: plan no more runs"
            )
            raise ConfigError(msg)
        return list(self.confirm[first : first + count])

    def score(self, truth: Truth, schedule: FilterSchedule, seed: int, score_on: Split) -> float:
        """A run's accuracy, a fraction.

        Raises:
            ConfigError: The column serves the other split, or the schedule is not in the table.
        """
        allowed = self.search if score_on == "validation" else self.confirm
        if seed not in allowed or isinstance(truth, Surface):
            msg = f"column {seed} is none of {score_on}; ask for runs by the seeds that `Columns.seeds` gives"
            raise ConfigError(msg)
        return float(truth.scores[truth.rows(np.array([schedule.filters], np.int64))[0], seed])


@dataclass(frozen=True)
class TableEvaluator:
    """Looks runs up in place of training them: an `search.evaluate.Evaluate`.

    It has no images, losses, epochs or weights: `correct` and `weights` are None, `loss` is NaN, `on_epoch` is never
    called, and the epochs are those asked for. A run takes the time that it is told to, which its
    `wall_seconds` say.

    Attributes:
        truth: What is known.
        draw: How a run comes of it.
        seconds_per_run: What each run takes, as if it trained.
    """

    truth: Truth
    draw: Noise | Columns
    seconds_per_run: float = 0.0

    @property
    def name(self) -> str:
        """What people call what is known."""
        return self.truth.name

    @property
    def fingerprint(self) -> str:
        """Equal for equal truths on any machine."""
        return self.truth.fingerprint

    def __call__(
        self,
        schedule: FilterSchedule,
        seeds: Sequence[int],
        fidelity: Fidelity,
        score_on: Split,
        on_epoch: OnEpoch | None = None,
        keep_weights: bool = False,
    ) -> list[Run]:
        """See `search.evaluate.Evaluate`.

        Raises:
            ConfigError: See `Table.rows` and `Columns.score`.
        """
        scores = [self.draw.score(self.truth, schedule, seed, score_on) for seed in seeds]
        time.sleep(len(scores) * self.seconds_per_run)
        return [
            Scored(seed, accuracy, float("nan"), None, fidelity.epochs, self.seconds_per_run)
            for seed, accuracy in zip(seeds, scores, strict=True)
        ]


class TableCosts:
    """What a table's schedules cost: a `search.cost.CostModel`.

    Outside the table nothing is known. For the sake of fitting a rule, whose members may leave the table, a schedule
    outside it counts as the cheapest row that is as wide in every stage, and as unaffordable where there is none; such
    a schedule is never in the space.

    Args:
        table: Tells some costs, or all.
        family: Prices what the table does not tell; None leaves that unknown.
    """

    def __init__(self, table: Table, family: CostModel | None) -> None:
        self._table = table
        self._family = family
        self._widest = table.filters.max(axis=0)

    def costs(self, schedule: FilterSchedule) -> Costs:
        """See `search.cost.CostModel`."""
        known = {} if self._family is None else asdict(self._family.costs(schedule))
        return Costs(**(dict.fromkeys(COST_NAMES) | known | self._told(schedule)))

    def table(self, filters: NDArray[np.int64], cost: CostName) -> NDArray[np.int64]:
        """See `search.cost.CostModel`.

        Raises:
            ConfigError: A schedule is not in the table, or the cost is not known.
        """
        if cost in self._table.costs:
            return self._table.costs[cost][self._table.rows(filters)]
        if self._family is None:
            msg = f"{self._table.name} does not tell {cost}; name its column, or give table.images to price it"
            raise ConfigError(msg)
        return self._family.table(filters, cost)

    def _told(self, schedule: FilterSchedule) -> dict[CostName, int]:
        table = self._table
        row = table.row(schedule)
        if row is not None:
            return {cost: int(values[row]) for cost, values in table.costs.items()}
        filters = np.array(schedule.filters, object)  # of any magnitude
        if (filters > self._widest).any():  # most members that a rule is tried at
            return dict.fromkeys(table.costs, UNAFFORDABLE)
        wider = (table.filters >= filters.astype(np.int64)).all(axis=1)
        if not wider.any():
            return dict.fromkeys(table.costs, UNAFFORDABLE)
        return {cost: int(values[wider].min()) for cost, values in table.costs.items()}
