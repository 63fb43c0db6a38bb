"""The pictures of series of studies: the best second stage against the features, regret against falling memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from search.cost import amount
from search.drawing import BLUE, COLOURS, GREY, INK, SIDE_MARKS, VERMILLION, paper, to_svg

_BUDGET_STYLES = (("o", BLUE), ("s", VERMILLION), ("^", INK))


def draw_second_stage(features: Sequence[int], columns: Mapping[str, Sequence[Mapping[str, int]]]) -> str:
    """The best second stage with its limits for every number of features and budget, beside 2^k-1 and 2k; SVG.

    Args:
        features: k of every study.
        columns: By budget, `best`, `low` and `high` of every study's second stage.
    """
    with paper(5.0) as figure:
        axes = figure.add_axes((0.09, 0.28, 0.88, 0.69))
        axes.plot(features, [2**k - 1 for k in features], color=GREY, label="$2^k-1$, one for each combination")
        axes.plot(features, [2 * k for k in features], color=GREY, linestyle="--", label="$2k$, two for each feature")
        for place, ((name, stages), (mark, colour)) in enumerate(zip(columns.items(), _BUDGET_STYLES, strict=True)):
            at = [k + 0.09 * (place - 1) for k in features]
            best = [each["best"] for each in stages]
            below = [each["best"] - each["low"] for each in stages]
            over = [each["high"] - each["best"] for each in stages]
            axes.errorbar(at, best, yerr=(below, over), fmt=mark, color=colour, capsize=3, label=f"best within {name}")
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(FixedLocator(list(features)))
        axes.set_xlabel("features k that classes combine")
        axes.set_ylabel("filters of the second stage")
        figure.legend(loc="lower center", ncols=2, frameon=False, fontsize=9)
    return to_svg(figure)


def draw_falling(rows: Sequence[Mapping[str, Any]], margin: float) -> str:
    """Doubling's regret with its interval under every memory budget, largest first, against the margin; SVG.

    Args:
        rows: `limit` in bytes, `regret` and `verdict` of every budget.
        margin: A fraction.
    """
    with paper(3.6) as figure:
        axes: Axes = figure.add_axes((0.08, 0.18, 0.84, 0.74))
        for place, row in enumerate(rows):
            regret, verdict = row["regret"], row["verdict"]
            points = [100 * regret[key] for key in ("low", "mean", "high")]
            axes.plot([place, place], [points[0], points[2]], color=COLOURS[verdict], linewidth=2)
            axes.plot(place, points[1], SIDE_MARKS[verdict], color=COLOURS[verdict], markersize=8, clip_on=False)
            top = max(points[2], 100 * margin)
            axes.annotate(verdict, (place, top), (0, 5), textcoords="offset points", ha="center", fontsize=9)
        axes.axhline(100 * margin, color=INK, linestyle=":", linewidth=1)
        axes.annotate("margin", (1, 100 * margin), (3, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="center", fontsize=9)  # fmt: skip
        axes.xaxis.set_major_locator(FixedLocator(list(range(len(rows)))))
        axes.set_xticklabels([f"{amount('memory', row['limit'])}\n{row['rule_schedule']}" for row in rows])
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.margins(y=0.18)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("memory allowed for training, and doubling's schedule within it")
        axes.set_ylabel("regret of doubling, points")
    return to_svg(figure)
