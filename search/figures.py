"""What a study found, as pictures: confirmation, and accuracy against each cost.

Owns marks and layout; every number comes from `findings` and the trials.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from search.cost import CostName, Costs, amount
from search.drawing import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    PALE,
    SIGNS,
    VERMILLION,
    above,
    beside,
    draw_interval,
    draw_margin,
    paper,
    side_handles,
    signed,
)
from search.findings import Confirmed, Finding, Findings
from search.schedule import FilterSchedule
from search.study import accuracy_of, costs_of
from search.verdict import Comparison, Outcome
from search.wording import OUTCOMES, listed, number, origin_text, percent, question, score_text, share, short_budget

COST_LABELS: dict[CostName, str] = {
    "params": "parameters",
    "macs": "multiply-adds (MACs) per image",
    "activations": "activations per image",
    "memory": "predicted training memory",
}
_MOST_VECTORS = 1000  # marks drawn as vectors; of more, an SVG is megabytes that open slowly
_JUDGED_MARKS, _COMPARED_MARKS = "*XPdh", "osD^v<>pH8"
SIDES: dict[Outcome, str] = {
    "not near-optimal": "better by more than the margin",
    "near-optimal": "not better by more than the margin",
    "undecided": "open",
}


@dataclass(frozen=True)
class TrialPoint:
    """A complete trial as the pictures see it.

    Attributes:
        origin: The rule it is a member of, or the sampler.
        schedule: What was trained.
        costs: What that costs.
        accuracy: Mean validation accuracy, a fraction.
    """

    origin: str
    schedule: FilterSchedule
    costs: Costs
    accuracy: float

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """A complete trial of the storage."""
        schedule = FilterSchedule.parse(trial.user_attrs["schedule"])
        return cls(trial.user_attrs["origin"], schedule, costs_of(trial), accuracy_of(trial))


def confirmation(findings: Findings) -> Figure:
    """Per case: every challenger's mean test accuracy minus the rule's, with simultaneous limits, against the margin.

    Args:
        findings: With at least one finding.
    """
    confirm = findings.plan.config.confirm
    rows = list(_rows(findings.findings))
    title = question(findings.plan.source.name, [finding.case.rule for finding in findings.findings])
    summary = textwrap.wrap(_summary(findings.findings), 100)
    top, bottom = 0.5 + 0.21 * len(summary), 0.98
    height = top + bottom + 0.25 * rows[-1].bottom
    with paper(height) as figure:
        axes = figure.add_axes((0.31, bottom / height, 0.38, 1 - (top + bottom) / height))
        figure.text(0.015, 1 - 0.13 / height, title, size=14, weight="bold", va="top")
        figure.text(0.015, 1 - 0.42 / height, "\n".join(summary), size=10, va="top", linespacing=1.35)
        _draw_scale(axes, findings, rows[-1].bottom)
        for row in rows:
            if row.challenger is None:
                _draw_heading(figure, axes, row, confirm.margin)
            else:
                _draw_comparison(figure, axes, row, row.challenger, confirm.margin)
        figure.legend(handles=side_handles(SIDES), loc="lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def accuracy_against_cost(findings: Findings, trials: Sequence[TrialPoint], cost: CostName) -> Figure:
    """Every trial's validation accuracy against one cost, with the rules, the front and the budgets on that cost.

    The front is the best validation accuracy from left to right, a description of the search and not a finding.
    """
    with paper(4.4) as figure:
        axes = figure.add_axes((0.085, 0.13, 0.635, 0.715))
        score = score_text(findings.plan.config.training.score)
        title = f"Validation {score} against {COST_LABELS[cost]}"
        figure.text(0.015, 0.97, title, size=11.5, weight="bold", va="top")
        axes.set_xlabel(COST_LABELS[cost])
        axes.set_ylabel(f"validation {score} (%)")
        axes.grid(color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        _draw_trials(axes, findings, trials, cost)
        _draw_front(axes, trials, cost)
        _scale_cost(axes, findings, trials, cost)
        _scale_accuracy(axes, [trial.accuracy for trial in trials])
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=9, borderaxespad=0)
    return figure


@dataclass(frozen=True)
class _Row:
    """A line of the confirmation picture: a case's heading, or one of its challengers."""

    finding: Finding
    challenger: Confirmed | None
    centre: float
    bottom: float


def _rows(findings: Sequence[Finding]) -> Iterator[_Row]:
    """Headings, and challengers best first, from top to bottom; a unit is one challenger's line."""
    y = 0.0
    for finding in findings:
        yield _Row(finding, None, y + 0.7, y + 1.3)
        y += 1.3
        comparisons = finding.verdict.comparisons
        for challenger in sorted(finding.challengers, key=lambda each: -comparisons[str(each.schedule)].mean):
            yield _Row(finding, challenger, y + 0.5, y + 1.0)
            y += 1.0
        y += 0.3


def _summary(findings: Sequence[Finding]) -> str:
    """The verdicts in one line: budgets by outcome, with the rule where several are judged."""
    several = len({finding.case.rule for finding in findings}) > 1
    parts = []
    for outcome in OUTCOMES:
        names = [
            f"{each.case.rule} within {short_budget(each.case.budget)}" if several else short_budget(each.case.budget)
            for each in findings
            if each.verdict.outcome == outcome
        ]
        if names:
            parts.append(f"{outcome.capitalize()}{':' if several else ' within'} {listed(names)}.")
    return " ".join(parts)


def _draw_scale(axes: Axes, findings: Findings, bottom: float) -> None:
    confirm, score = findings.plan.config.confirm, score_text(findings.plan.config.training.score)
    left, right = _limits(findings.findings, confirm.margin)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, 0)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axis = f"{score} minus the rule's, in points; grey: within the margin of {number(confirm.margin)}"
    lines = f"lines: limits that hold with {share(confirm.confidence)} confidence over all looks together"
    axes.set_xlabel(axis if all(finding.verdict.exact for finding in findings.findings) else f"test {axis}\n{lines}")


def _limits(findings: Sequence[Finding], margin: float) -> tuple[float, float]:
    """The span of the axis in points: all of what matters, with far worse challengers cut off on the left."""
    known = [each for finding in findings for each in finding.verdict.comparisons.values() if each.runs]
    right = 100 * max([2 * margin, *(each.high for each in known if each.high < 1)])
    left = 100 * min([-margin, *(each.low for each in known)])
    return max(left, -2 * right) * 1.08, right * 1.08


def _draw_heading(figure: Figure, axes: Axes, row: _Row, margin: float) -> None:
    finding, outcome = row.finding, row.finding.verdict.outcome
    transform = blended_transform_factory(figure.transFigure, axes.transData)
    rule = finding.rule
    accuracy = f", {percent(rule.accuracy.mean)}" if rule.accuracy else ""
    axes.plot([0.015, 0.985], [row.bottom - 1.3] * 2, transform=transform, color="#C8C8C8", linewidth=1, clip_on=False)
    beside(figure, axes, 0.015, row.centre, short_budget(finding.case.budget), weight="bold")
    beside(figure, axes, 0.31, row.centre, f"{finding.case.rule}: {rule.schedule}{accuracy}")
    verdict = f"{SIGNS[outcome]} {outcome}"
    beside(figure, axes, 0.985, row.centre, verdict, COLOURS[outcome], "right", "bold")
    draw_margin(axes, (row.bottom, row.bottom + len(finding.challengers)), margin)


def _draw_comparison(figure: Figure, axes: Axes, row: _Row, challenger: Confirmed, margin: float) -> None:
    comparison = row.finding.verdict.comparisons[str(challenger.schedule)]
    label = f"{challenger.schedule}  {origin_text(challenger.origin)}"
    beside(figure, axes, 0.03, row.centre, textwrap.shorten(label, 34, placeholder="…") if len(label) > 34 else label)
    if not comparison.runs:
        beside(figure, axes, 0.705, row.centre, "no look yet", GREY)
        return
    outcome = side_of(comparison, margin)
    low, mean, high = (100 * value for value in (comparison.low, comparison.mean, comparison.high))
    draw_interval(axes, row.centre, (low, mean, high), outcome)
    beside(figure, axes, 0.705, row.centre, signed(mean), COLOURS[outcome])
    if row.finding.verdict.exact:
        beside(figure, axes, 0.985, row.centre, "known", GREY, "right")
        return
    beside(figure, axes, 0.775, row.centre, f"[{signed(low)}, {signed(high)}]")
    beside(figure, axes, 0.985, row.centre, f"{comparison.runs} runs", GREY, "right")


def side_of(comparison: Comparison, margin: float) -> Outcome:
    """What one challenger alone says of the rule."""
    if comparison.low > margin:
        return "not near-optimal"
    return "near-optimal" if comparison.settled else "undecided"


def _draw_trials(axes: Axes, findings: Findings, trials: Sequence[TrialPoint], cost: CostName) -> None:
    rules = findings.plan.config.rules
    judged, compared = ([str(rule) for rule in which] for which in (rules.judged, rules.compared))
    sampled = [trial for trial in trials if trial.origin not in (*judged, *compared)]
    many = len(sampled) > _MOST_VECTORS
    size = 3 if many else 6
    axes.plot(*_columns(sampled, cost), ".", color="#9A9A9A", markersize=size, label="sampled", rasterized=many)
    for rule, mark in zip(compared, cycle(_COMPARED_MARKS), strict=False):
        own = _columns([trial for trial in trials if trial.origin == rule], cost)
        axes.plot(*own, mark, mfc="white", mec=BLUE, mew=1.2, markersize=6.5, label=rule, zorder=3)
    for rule, mark in zip(judged, cycle(_JUDGED_MARKS), strict=False):
        own = _columns([trial for trial in trials if trial.origin == rule], cost)
        axes.plot(*own, color=VERMILLION, linewidth=1.6, zorder=3)
        axes.plot(*own, mark, mfc=VERMILLION, mec="white", markersize=15, label=f"{rule} (judged)", zorder=4)


def _columns(trials: Sequence[TrialPoint], cost: CostName) -> tuple[list[int], list[float]]:
    """Costs, rising, and the errors that go with them."""
    ordered = sorted(trials, key=lambda trial: trial.costs[cost])
    return [trial.costs[cost] for trial in ordered], [error_of(trial.accuracy) for trial in ordered]


def error_of(accuracy: float) -> float:
    """The error an accuracy is drawn at; an error of 0 has no logarithm."""
    return max(1 - accuracy, 5e-4)


def _draw_front(axes: Axes, trials: Sequence[TrialPoint], cost: CostName) -> None:
    ordered = sorted(trials, key=lambda trial: (trial.costs[cost], -trial.accuracy))
    costs = [trial.costs[cost] for trial in ordered]
    best: NDArray[np.float64] = np.minimum.accumulate([error_of(trial.accuracy) for trial in ordered] or [1.0])
    axes.plot(
        costs, best[: len(costs)], color=INK, linewidth=1.1, drawstyle="steps-post", label="best so far, by cost"
    )


def _scale_cost(axes: Axes, findings: Findings, trials: Sequence[TrialPoint], cost: CostName) -> None:
    limits = [budget.limit for budget in findings.plan.config.budgets if budget.cost == cost]
    shown = [*limits, *(trial.costs[cost] for trial in trials)] or [1]
    axes.set_xscale("log", base=2 if cost == "memory" else 10)
    axes.set_xlim(min(shown) / 1.15, max(shown) * 1.15)
    wide = max(shown) > 300 * min(shown)
    if cost != "memory":
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief_amount(cost, value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    last = -math.inf
    for limit in sorted(limits):
        axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        here = math.log(limit / min(shown)) / math.log(1.4 * max(shown) / min(shown))
        if here - last > 0.2:  # of the axis; labels nearer to each other would overlap
            above(axes, limit, f"budget {amount(cost, limit)}")
            last = here


def _scale_accuracy(axes: Axes, accuracies: Sequence[float]) -> None:
    """Errors on a log scale, upside down and labelled as accuracies: near 100 % differences are in the errors."""
    errors = [error_of(accuracy) for accuracy in accuracies] or [0.1, 0.01]
    low, high = min(errors) / 1.15, max(errors) * 1.15
    axes.set_yscale("log")
    axes.set_ylim(high, low)
    ticks = [0.9, 0.7, 0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01, 0.005, 0.002, 0.001]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 - 100 * value:.4g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def brief_amount(cost: CostName, value: float) -> str:
    """A cost short enough for a tick: `1.5k`."""
    if cost == "memory":
        return amount("memory", round(value)).replace(".0 ", " ")
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
