"""Filters of every stage as bars: the judged rule's schedule beside the best one, under each budget.

Owns which schedules stand there and how they are drawn; what is best is decided in `findings`, or before the first
verdict told by the search's own scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from search.cost import Budget
from search.drawing import BLUE, GREY, paper
from search.figures import TrialPoint
from search.findings import Findings, by_budget
from search.schedule import FilterSchedule
from search.wording import short_budget

_COLUMNS = 2
_TITLE, _PANEL, _GAP, _LEGEND = 0.72, 1.35, 0.65, 0.5  # inches from top to bottom; a gap lies between two panels


@dataclass(frozen=True)
class StageBars:
    """What stands side by side under one budget.

    Attributes:
        budget: The budget.
        rule_name: The first rule judged.
        rule: Its schedule.
        best: The best confirmed schedule, or the best trial's before anything is confirmed.
    """

    budget: Budget
    rule_name: str
    rule: FilterSchedule
    best: FilterSchedule


def stage_bars(findings: Findings, trials: Sequence[TrialPoint]) -> list[StageBars]:
    """One for each budget that has a confirmed schedule, or a trial within it."""
    confirmed = {budget: best.schedule for budget, best in by_budget(findings.findings).items()}
    bars = []
    for fit in findings.plan.judged:
        if fit.rule != findings.plan.judged[0].rule:
            continue
        within = [trial for trial in trials if fit.budget.admits(trial.costs)]
        best = confirmed.get(fit.budget)
        if best is None and within:
            best = max(within, key=lambda trial: trial.accuracy).schedule
        if best is not None:
            bars.append(StageBars(fit.budget, str(fit.rule), fit.schedule, best))
    return bars


def stages(bars: Sequence[StageBars]) -> Figure:
    """Per budget: filters of every stage, of the judged rule's schedule beside the best one.

    Args:
        bars: At least one.
    """
    rows = math.ceil(len(bars) / _COLUMNS)
    height = _TITLE + rows * _PANEL + (rows - 1) * _GAP + _LEGEND + 0.3
    with paper(height) as figure:
        title = "Filters of every stage"
        figure.text(0.015, 1 - 0.13 / height, title, size=11.5, weight="bold", va="top")
        for place, each in enumerate(bars):
            row, column = divmod(place, _COLUMNS)
            bottom = height - _TITLE - (row + 1) * _PANEL - row * _GAP
            axes = figure.add_axes((0.085 + 0.495 * column, bottom / height, 0.41, _PANEL / height))
            axes.set_title(f"within {short_budget(each.budget)}", loc="left", fontsize=9.5, weight="bold")
            places = np.arange(len(each.best))
            for schedule, offset, colour in ((each.rule, -0.2, GREY), (each.best, 0.2, BLUE)):
                drawn = axes.bar(places + offset, schedule.filters, 0.38, color=colour)
                axes.bar_label(drawn, padding=1, fontsize=9)
            axes.set_xticks(places, [f"stage {number + 1}" for number in places])
            axes.tick_params(axis="x", length=0)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.margins(y=0.16)
        handles = [Patch(color=GREY, label=bars[0].rule_name), Patch(color=BLUE, label="best")]
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=9)
    return figure
