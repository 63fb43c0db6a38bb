"""The growth ratio as pictures: which serves best under each budget, and what another one costs.

Owns marks and layout; every number comes from `growth`.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from search.drawing import BLUE, INK, VERMILLION, above, beside, paper
from search.findings import Findings
from search.growth import BestRatio
from search.wording import number, ratio, short_budget

_COLUMNS = 2
_TITLE, _PANEL, _GAP, _LEGEND = 0.86, 1.75, 0.95, 0.95  # inches from top to bottom; a gap lies between two panels


def ratios(findings: Findings) -> Figure:
    """Per budget: the growth ratio that serves best with its interval, and where doubling lies.

    Args:
        findings: With at least one rule of thumb.
    """
    found = findings.rule_of_thumb
    height = 1.25 + 0.34 * len(found)
    with paper(height) as figure:
        axes = figure.add_axes((0.26, 0.62 / height, 0.5, 0.34 * len(found) / height))
        figure.text(0.015, 1 - 0.13 / height, "Growth ratio that serves best", size=11.5, weight="bold", va="top")
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.23, 4.4)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: ratio(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("filters of a stage over filters of the stage before")
        axes.axvline(2, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        above(axes, 2, "doubling")
        axes.set_yticks(range(len(found)), [short_budget(each.budget) for each in found])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        for place, each in enumerate(found):
            interval = each.interval
            axes.plot([interval.low, interval.high], [place, place], color=BLUE, linewidth=2.2)
            axes.plot(interval.ratio, place, "o", color=BLUE, markersize=7)
            text = f"{ratio(interval.ratio)}  [{ratio(interval.low)}, {ratio(interval.high)}]"
            beside(figure, axes, 0.785, place, text)
    return figure


def falloff(findings: Findings) -> Figure:
    """Per budget: accuracy minus doubling's against the growth ratio, predicted and confirmed.

    Differences and not levels, since predictions are of validation accuracy and confirmation is on the test split.

    Args:
        findings: With at least one budget of which `shows_falloff` is true.
    """
    shown = [each for each in findings.rule_of_thumb if shows_falloff(each)]
    margin = 100 * findings.plan.config.confirm.margin
    rows = math.ceil(len(shown) / _COLUMNS)
    height = _TITLE + rows * _PANEL + (rows - 1) * _GAP + _LEGEND
    with paper(height) as figure:
        title = "What another growth ratio costs, or gains"
        figure.text(0.015, 1 - 0.13 / height, title, size=11.5, weight="bold", va="top")
        for place, each in enumerate(shown):
            row, column = divmod(place, _COLUMNS)
            bottom = height - _TITLE - (row + 1) * _PANEL - row * _GAP
            axes = figure.add_axes((0.085 + 0.495 * column, bottom / height, 0.41, _PANEL / height))
            _draw_panel(axes, each, margin)
        figure.legend(handles=_handles(shown, margin), loc="lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def shows_falloff(best: BestRatio) -> bool:
    """Whether there is doubling to compare with."""
    return any(each.gain for each in best.curve)


def _draw_panel(axes: Axes, best: BestRatio, margin: float) -> None:
    axes.set_title(f"within {short_budget(best.budget)}", loc="left", fontsize=9.5, weight="bold", pad=17)
    at = [(each.ratio, each.gain) for each in best.curve if each.gain]
    places = [place for place, _ in at]
    mean, low, high = ([100 * getattr(gain, part) for _, gain in at] for part in ("mean", "low", "high"))
    confirmed = [(each.ratio, each.gain) for each in best.confirmed if each.gain]
    bottom, top = falloff_span(best, margin)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.23, 4.4)
    axes.set_ylim(bottom, top)
    axes.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: ratio(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel("growth ratio")
    axes.set_ylabel("points over doubling")
    axes.axhspan(0, margin, color="#E4E4E4", linewidth=0)
    axes.axhline(0, color=INK, linewidth=1)
    axes.axvline(2, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
    above(axes, 2, "doubling")
    if not best.exact:
        axes.fill_between(places, low, high, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(places, mean, color=BLUE, linewidth=2)
    for place, gain in confirmed:
        limits = [100 * gain.low, 100 * gain.high]
        axes.plot([place, place], limits, color=VERMILLION, linewidth=1.6)
        axes.plot(place, 100 * gain.mean, "D", color=VERMILLION, mec="white", markersize=6.5, zorder=4)
        if 100 * gain.mean < bottom:
            axes.plot(place, bottom, "v", color=VERMILLION, clip_on=False, zorder=4)


def falloff_span(best: BestRatio, margin: float) -> tuple[float, float]:
    """The vertical axis in points: what rises above doubling whole, and as far below as a few margins matter.

    Args:
        best: A budget of which `shows_falloff` is true.
        margin: In points.
    """
    gains = [each.gain for each in best.curve if each.gain]
    confirmed = [each.gain for each in best.confirmed if each.gain]
    most = max([2 * margin, *(100 * gain.mean for gain in gains), *(100 * gain.high for gain in confirmed)])
    top = max(most, min(100 * max(gain.high for gain in gains), 2 * most))
    bottom = min([-2 * margin, *(100 * gain.mean for gain in gains), *(100 * gain.low for gain in confirmed)])
    return max(bottom, -2.5 * top) * 1.08, top * 1.08


def _tick(points: float) -> str:
    return number(points / 100)


def _handles(shown: Sequence[BestRatio], margin: float) -> list[Line2D | Patch]:
    exact = all(each.exact for each in shown)
    handles: list[Line2D | Patch] = [Line2D([], [], color=BLUE, linewidth=2, label="known" if exact else "predicted")]
    if not exact:
        handles.append(Patch(color=BLUE, alpha=0.18, linewidth=0, label="95 % interval of the prediction"))
    if any(each.gain for best in shown for each in best.confirmed):
        handles.append(Line2D([], [], color=VERMILLION, marker="D", linewidth=1.6, label="confirmed, with interval"))
    handles.append(Patch(color="#E4E4E4", label=f"better, but within the margin of {number(margin / 100)}"))
    return handles
