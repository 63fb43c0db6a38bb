"""What all figures share: colours, style, paper, labels, and how a figure becomes a file.

Colours are Okabe and Ito's, which people with any colour vision can tell apart, and each also goes with a mark or a
word.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from search.verdict import Outcome
from search.wording import OUTCOMES

WIDTH = 8.0  # inches; 800 pixels on a page
BLUE, VERMILLION, GREY, INK, PALE = "#0072B2", "#D55E00", "#6B6B6B", "#1A1A1A", "#ECECEC"
COLOURS: dict[Outcome, str] = {"near-optimal": BLUE, "not near-optimal": VERMILLION, "undecided": GREY}
SIGNS: dict[Outcome, str] = {"near-optimal": "✓", "not near-optimal": "✗", "undecided": "?"}
SIDE_MARKS: dict[Outcome, str] = {"near-optimal": "o", "not near-optimal": "D", "undecided": "s"}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so files are the same everywhere
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "filter-search",  # the same picture is the same file
    "svg.fonttype": "path",
    "savefig.facecolor": "white",
}


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    text = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG of 1,600 pixels' width, sharp at 800."""
    image = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(image, format="png", dpi=200, metadata={"Software": None})
    return image.getvalue()


@contextmanager
def paper(height: float) -> Iterator[Figure]:
    """An empty figure of a page's width and this height in inches, to be drawn on in the common style."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(WIDTH, height))


def beside(
    figure: Figure,
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str = INK,
    align: Literal["left", "right"] = "left",
    weight: Literal["normal", "bold"] = "normal",
) -> None:
    """Text anywhere in the figure: x as a fraction of it, y in data."""
    transform = blended_transform_factory(figure.transFigure, axes.transData)
    axes.text(x, y, text, transform=transform, color=colour, ha=align, va="center", weight=weight)


def above(axes: Axes, x: float, text: str) -> None:
    """A label above the axes at a place on them."""
    axes.annotate(
        text, (x, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", fontsize=9
    )


def signed(value: float) -> str:
    """A difference in points, already times 100, with its sign: `+0.30`."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def draw_interval(axes: Axes, y: float, points: tuple[float, float, float], outcome: Outcome) -> None:
    """Low, mean and high as a dot on a line, in the colour and mark of a side; arrows where it is cut off."""
    left, right = axes.get_xlim()
    low, mean, high = points
    colour = COLOURS[outcome]
    axes.plot([max(low, left), min(high, right)], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
    if left < mean < right:
        axes.plot(mean, y, SIDE_MARKS[outcome], color=colour, markersize=6.5)
    if low < left:
        axes.plot(left, y, "<", color=colour, clip_on=False)
    if high > right:
        axes.plot(right, y, ">", color=colour, clip_on=False)


def draw_margin(axes: Axes, span: tuple[float, float], margin: float) -> None:
    """Grey from no difference to the margin, a line at either, over a span of the vertical axis."""
    axes.fill_betweenx(span, 0, 100 * margin, color="#E4E4E4", linewidth=0)
    axes.plot([0, 0], span, color=INK, linewidth=1.2)
    axes.plot([100 * margin] * 2, span, color=INK, linewidth=1, linestyle=(0, (4, 2)))


def side_handles(said: Mapping[Outcome, str]) -> list[Line2D]:
    """A legend of the sides an interval may lie on."""
    return [
        Line2D([], [], color=COLOURS[outcome], marker=SIDE_MARKS[outcome], linewidth=2.2, label=said[outcome])
        for outcome in OUTCOMES
    ]
