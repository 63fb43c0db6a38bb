"""How accuracy depends on the growth ratio within a budget: which ratio serves best, and what another one costs.

Owns the geometric schedules fitted to a budget, and what the surrogate and the confirmed runs say of them. The
surrogate has seen validation scores and confirmation gives test scores, two levels that may lie apart; so both are
also told as gains over doubling, which compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.cases import Case, Scores
from search.cost import Budget
from search.plan import StudyPlan
from search.rules import Rule, fit
from search.schedule import FilterSchedule
from search.soundness import difference
from search.surrogate import RatioInterval, Surrogate, best_ratio
from search.verdict import Interval, mean_interval

CREDIBILITY = 0.95
"""Of the surrogate's intervals, whatever confidence a study asks of its verdicts."""

_RATIOS = np.exp2(np.arange(-16, 17) / 8)  # a quarter to 4, with 2 itself among them
_DRAWS = 2000
_FIXED_RATIOS = {"uniform": 1.0, "doubling": 2.0, "reverse": 0.5}  # of rules that are geometric without saying so


@dataclass(frozen=True)
class AtRatio:
    """What is believed of the schedule that grows by one ratio and fits the budget.

    Attributes:
        ratio: Filters of a stage over filters of the stage before, until rounded.
        schedule: The largest such schedule within the budget; neighbouring ratios may round to the same one.
        accuracy: Predicted mean validation accuracy, or the one known.
        sd: Of that prediction; 0 where known.
        gain: Accuracy minus that of doubling's schedule, with limits from the joint posterior; None where doubling has
            no schedule within budget and space.
    """

    ratio: float
    schedule: FilterSchedule
    accuracy: float
    sd: float
    gain: Interval | None


@dataclass(frozen=True)
class ConfirmedRatio:
    """What the confirmation runs say of one growth ratio.

    Attributes:
        ratio: That of its rule, or the middle one of the ratios that round to it.
        schedule: A schedule that was confirmed under this budget.
        accuracy: Mean test accuracy with its interval at the study's confidence.
        runs: Runs behind it.
        gain: Mean test accuracy minus that of doubling's schedule, with Welch's interval at the study's confidence;
            None where doubling was not confirmed.
    """

    ratio: float
    schedule: FilterSchedule
    accuracy: Interval
    runs: int
    gain: Interval | None


@dataclass(frozen=True)
class BestRatio:
    """The growth ratio that serves best under one budget, and how accuracy falls off on both sides of it.

    Attributes:
        budget: The budget.
        interval: Of the ratio: by the surrogate, or of the ratios whose schedules are best alike.
        exact: Whether it is read off known accuracies, not off the surrogate.
        curve: By rising ratio.
        confirmed: By rising ratio; only what was confirmed and grows evenly.
    """

    budget: Budget
    interval: RatioInterval
    exact: bool = False
    curve: tuple[AtRatio, ...] = ()
    confirmed: tuple[ConfirmedRatio, ...] = ()

    def within(self, margin: float) -> tuple[float, float] | None:
        """The ratios around the best of the curve that are predicted to lose no more than `margin` to it."""
        if not self.curve:
            return None
        accuracy = np.array([each.accuracy for each in self.curve])
        best = int(accuracy.argmax())
        short = np.flatnonzero(accuracy < accuracy[best] - margin)
        first = max([-1, *short[short < best]]) + 1
        last = min([len(accuracy), *short[short > best]]) - 1
        return self.curve[first].ratio, self.curve[last].ratio


def ratio_members(plan: StudyPlan, budget: Budget) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Growth ratios tried under a budget, shape `(n,)`, and their fitted schedules, shape `(n, n_stages)`.

    Ratios without a member within budget and space are left out; nothing grows in a space of one stage.
    """
    space = plan.space
    fits = (
        (ratio, fit(Rule("geometric", ratio), budget, plan.cost_model, space.stages, space.multiple))
        for ratio in (_RATIOS if space.stages > 1 else ())
    )
    members = [(ratio, fitted.schedule.filters) for ratio, fitted in fits if fitted and fitted.schedule in space]
    return (
        np.array([ratio for ratio, _ in members]),
        np.array([filters for _, filters in members], np.int64).reshape(-1, space.stages),
    )


def best_ratios(
    plan: StudyPlan, surrogate: Surrogate, cases: Sequence[Case], found: Scores, rng: np.random.Generator
) -> list[BestRatio]:
    """One for each budget that at least two ratios have members in.

    Args:
        plan: Says which schedules grow evenly and fit.
        surrogate: Of the search's runs.
        cases: What was confirmed.
        found: Test accuracies of every confirmed schedule.
        rng: Draws the interval of the best ratio, and nothing else from it.
    """
    best = []
    for number, budget in enumerate(plan.config.budgets):
        ratios, filters = ratio_members(plan, budget)
        if len(ratios) > 1:
            interval = best_ratio(surrogate, ratios, filters, rng, CREDIBILITY)
            own = np.random.default_rng([plan.config.seed, 5, number])
            curve = predicted(surrogate, ratios, filters, doubling(plan, budget), own)
            mine = [case for case in cases if case.budget == budget]
            best.append(BestRatio(budget, interval, False, curve, confirmed(plan, mine, found, ratios, filters)))
    return best


def doubling(plan: StudyPlan, budget: Budget) -> FilterSchedule | None:
    """Doubling's largest schedule within a budget; None where none is in the space."""
    fitted = fit(Rule("doubling"), budget, plan.cost_model, plan.space.stages, plan.space.multiple)
    return fitted.schedule if fitted and fitted.schedule in plan.space else None


def predicted(
    surrogate: Surrogate,
    ratios: NDArray[np.float64],
    filters: NDArray[np.int64],
    reference: FilterSchedule | None,
    rng: np.random.Generator,
) -> tuple[AtRatio, ...]:
    """What the surrogate predicts at every ratio, and how sure it is of the gain over the reference.

    The limits of a gain are quantiles of joint posterior draws: errors that a schedule and the reference share cancel.
    They are credible limits, each for itself and not for the curve as a whole, and they mislead as the surrogate does
    (see `Surrogate`).

    Args:
        surrogate: Predicts.
        ratios: Shape `(r,)`.
        filters: Their schedules, shape `(r, n_stages)`.
        reference: What gains are over.
        rng: Draws.
    """
    rows = filters if reference is None else np.vstack([filters, np.array([reference.filters], np.int64)])
    distinct, group = np.unique(rows, axis=0, return_inverse=True)  # equal schedules get equal numbers
    mean, sd = (values[group] for values in surrogate.predict(distinct))
    gains: list[Interval | None] = [None] * len(ratios)
    if reference is not None:
        draws, tail = surrogate.draws(distinct, _DRAWS, rng)[:, group], (1 - CREDIBILITY) / 2
        low, high = np.quantile(draws[:, :-1] - draws[:, -1:], [tail, 1 - tail], axis=0)
        gains = [Interval(*map(float, limits)) for limits in zip(mean[:-1] - mean[-1], low, high, strict=True)]
    return tuple(
        AtRatio(float(ratio), FilterSchedule(tuple(map(int, row))), float(accuracy), float(spread), gain)
        for ratio, row, accuracy, spread, gain in zip(
            ratios, filters, mean[: len(ratios)], sd[: len(ratios)], gains, strict=True
        )
    )


def confirmed(
    plan: StudyPlan,
    cases: Sequence[Case],
    found: Scores,
    ratios: NDArray[np.float64],
    filters: NDArray[np.int64],
) -> tuple[ConfirmedRatio, ...]:
    """What confirmation says of the schedules under one budget that grow evenly.

    Intervals are those of all runs made, each for itself, not adjusted for looks or for how many there are; so they
    are narrower than the verdict's and decide nothing.
    """
    entrants: dict[FilterSchedule, str] = {}
    for case in cases:
        entrants.setdefault(case.schedule, str(case.rule))
        for each in case.challengers:
            entrants.setdefault(each.schedule, each.origin)
    reference = doubling(plan, cases[0].budget) if cases else None
    base = found.get(reference, np.empty(0)) if reference else np.empty(0)
    confidence, shown = plan.config.confirm.confidence, []
    for schedule, origin in entrants.items():
        runs, ratio = found.get(schedule, np.empty(0)), growth_ratio(origin, schedule, ratios, filters)
        if ratio is None or len(runs) < 2:
            continue
        gain = None
        if len(base) > 1:
            gain = Interval(0.0, 0.0, 0.0) if schedule == reference else difference(base, runs, confidence)
        shown.append(ConfirmedRatio(ratio, schedule, mean_interval(runs, confidence), len(runs), gain))
    return tuple(sorted(shown, key=lambda each: each.ratio))


def growth_ratio(
    origin: str, schedule: FilterSchedule, ratios: NDArray[np.float64], filters: NDArray[np.int64]
) -> float | None:
    """The ratio a schedule stands for: its rule's, or the middle one of those that round to it; None for neither."""
    if origin in _FIXED_RATIOS:
        return _FIXED_RATIOS[origin]
    if origin.startswith("geometric"):
        return Rule.parse(origin).parameter
    same = ratios[(filters == np.array(schedule.filters)).all(axis=1)]
    return float(same[(len(same) - 1) // 2]) if len(same) else None
