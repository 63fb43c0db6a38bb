"""Rules of thumb for schedules, and how one is fitted to a budget.

A rule has one free base width; fitted to a budget it is its largest member within it. Pure arithmetic on a cost model
handed in as a value.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, get_args

from search.cost import Budget, CostModel
from search.errors import ConfigError
from search.schedule import FilterSchedule

RuleName = Literal["doubling", "geometric", "uniform", "linear", "reverse", "hump", "combinations", "schedule"]
_RULE = re.compile(r"([a-z]+)(?:\(([0-9.-]+)\))?")
LARGEST_BASE = 2.0**41
BISECTIONS = 60  # resolves the largest base to 2^-19, far below the spacing at which a rounded width changes


@dataclass(frozen=True, order=True)
class Rule:
    """A recipe for schedules with a free base `b`, written `doubling` or `geometric(2.5)`.

    Attributes:
        name: The family.
        parameter: The ratio of `geometric`, the k of `combinations`; None for the others.
        filters: The one schedule that `schedule(16-32-64)` stands for, whatever the base; None for the others.
    """

    name: RuleName
    parameter: float | None = None
    filters: FilterSchedule | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form.

        Raises:
            ValueError: An unknown rule, or a parameter missing, superfluous or out of range.
        """
        match = _RULE.fullmatch(text.strip())
        if not match or match[1] not in get_args(RuleName):
            msg = (
                f"{text!r} is no rule; write doubling, uniform, linear, reverse, hump, geometric(RATIO) such as "
                "geometric(2.5), combinations(K) such as combinations(5), or schedule(FILTERS) such as "
                "schedule(16-32-64)"
            )
            raise ValueError(msg)
        if match[1] == "schedule":
            return cls("schedule", filters=_literal(text, match[2] or ""))
        try:
            parameter = float(match[2]) if match[2] else None
        except ValueError:
            parameter = math.nan
        rule = cls(match[1], parameter)  # type: ignore[arg-type] # checked against RuleName above
        rule._check(text)
        return rule

    def _check(self, text: str) -> None:
        match self.name:
            case "geometric":
                allowed = self.parameter is not None and 1 / 16 <= self.parameter <= 16
                needs = "geometric needs a ratio from 0.0625 to 16, such as geometric(2.5)"
            case "combinations":
                allowed = self.parameter is not None and self.parameter in range(1, 65)
                needs = "combinations needs a whole k from 1 to 64, such as combinations(5)"
            case _:
                allowed = self.parameter is None
                needs = f"{self.name} takes no parameter"
        if not allowed:
            msg = f"{text!r} is no rule; {needs}"
            raise ValueError(msg)

    def __str__(self) -> str:
        if self.filters is not None:
            return f"{self.name}({self.filters})"
        if self.parameter is None:
            return self.name
        whole = self.parameter == int(self.parameter)
        return f"{self.name}({int(self.parameter) if whole else self.parameter})"

    def widths(self, base: float, stages: int) -> list[float]:
        """Filters of each stage at base `base`, before rounding to a multiple; shape `(stages,)`."""
        match self.name:
            case "schedule":
                return [float(filters) for filters in self.filters.filters] if self.filters else []
            case "doubling":
                return [base * 2.0**i for i in range(stages)]
            case "geometric":
                return [base * (self.parameter or 1.0) ** i for i in range(stages)]
            case "uniform":
                return [base] * stages
            case "linear":
                return [base * (1 + i) for i in range(stages)]
            case "reverse":
                return [base * 2.0 ** (stages - 1 - i) for i in range(stages)]
            case "hump":
                return [base * 2.0 ** min(i, stages - 1 - i) for i in range(stages)]
            case "combinations":
                first = max(1, math.floor(base + 0.5))
                return [float(first)] + [_combinations(first, int(self.parameter or 1))] * (stages - 1)

    def schedule(self, base: float, stages: int, multiple: int) -> FilterSchedule:
        """The rule's member at base `base`, each stage rounded to a multiple and at least one.

        A literal schedule is its own only member, as it stands.
        """
        if self.filters is not None:
            return self.filters
        return FilterSchedule(tuple(round_to_multiple(width, multiple) for width in self.widths(base, stages)))


@dataclass(frozen=True)
class Fit:
    """A rule's largest member within a budget.

    Attributes:
        rule: The rule.
        budget: The budget.
        schedule: The member.
        budget_used: Cost over limit, in (0, 1].
    """

    rule: Rule
    budget: Budget
    schedule: FilterSchedule
    budget_used: float


def round_to_multiple(width: float, multiple: int) -> int:
    """The multiple nearest to `width`, halves up, at least one multiple."""
    return max(1, math.floor(width / multiple + 0.5)) * multiple


def largest_within(
    member: Callable[[float], FilterSchedule], budget: Budget, cost_model: CostModel
) -> FilterSchedule | None:
    """The largest member of a one-parameter family within a budget.

    Args:
        member: A schedule for every base; no stage may shrink as the base grows.
        budget: The limit.
        cost_model: Prices the members; costs must grow with the filters.

    Returns:
        None when even the smallest member breaks the budget.
    """

    def fits(base: float) -> bool:
        return budget.admits(cost_model.costs(member(base)))

    low, high = 0.0, 1.0
    if not fits(low):
        return None
    while high < LARGEST_BASE and fits(high):
        low, high = high, high * 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return member(low)


def fit(rule: Rule, budget: Budget, cost_model: CostModel, stages: int, multiple: int) -> Fit | None:
    """The rule's largest member within the budget; None when even its smallest breaks it."""
    schedule = largest_within(lambda base: rule.schedule(base, stages, multiple), budget, cost_model)
    if schedule is None:
        return None
    return Fit(rule, budget, schedule, cost_model.costs(schedule)[budget.cost] / budget.limit)


def _literal(text: str, schedule: str) -> FilterSchedule:
    try:
        return FilterSchedule.parse(schedule)
    except ConfigError as error:
        msg = f"{text!r} is no rule; {error}"
        raise ValueError(msg) from None


def _combinations(features: int, largest: int) -> float:
    """Ways to combine up to `largest` of `features` features: sum of C(features, n) for n = 1..largest."""
    ways = sum(math.comb(features, n) for n in range(1, min(largest, features) + 1))
    return float(min(ways, 2**256))  # beyond any budget, and still a finite float
