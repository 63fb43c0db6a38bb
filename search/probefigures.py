"""What the probes found as a picture: the same comparison at other learning rates.

Owns layout; every number comes from `soundness`.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from search.drawing import COLOURS, GREY, INK, beside, draw_interval, draw_margin, paper, side_handles, signed
from search.findings import Findings
from search.probewording import factor_text, steadiness_text
from search.soundness import Sensitivity, Steadiness
from search.verdict import Interval, Outcome
from search.wording import number, score_text, share, short_budget

_COLOURS: dict[Steadiness | None, str] = {
    "holds": COLOURS["near-optimal"],
    "turns": COLOURS["not near-optimal"],
    "open": GREY,
    None: GREY,
}
_SIDES: dict[Outcome, str] = {
    "not near-optimal": "above the margin",
    "near-optimal": "within the margin",
    "undecided": "on both sides of it",
}
_ROW, _HEADING = 0.25, 1.3  # inches a line; lines a case's heading takes


def learning_rates(findings: Findings) -> Figure:
    """Per case: the rival's mean test accuracy minus the rule's at half, the same and double the learning rate.

    Args:
        findings: With at least one sensitivity.
    """
    found, confirm = findings.sensitivities, findings.plan.config.confirm
    score = score_text(findings.plan.config.training.score)
    lines = sum(_HEADING + len(each.at) + 0.3 for each in found)
    top, bottom = 0.42, 0.98
    height = top + bottom + _ROW * lines
    with paper(height) as figure:
        axes = figure.add_axes((0.31, bottom / height, 0.38, 1 - (top + bottom) / height))
        title = "The same comparison at other learning rates"
        figure.text(0.015, 1 - 0.13 / height, title, size=11.5, weight="bold", va="top")
        every = [each.difference for case in found for each in case.at]
        axes.set_xlim(*_limits(every, confirm.margin))
        axes.set_ylim(lines, 0)
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            f"test {score} minus the rule's, in points; grey: within the margin of {number(confirm.margin)}\n"
            f"lines: {share(confirm.confidence)} intervals, each for itself"
        )
        y = 0.0
        for each in found:
            _draw_case(figure, axes, each, y, confirm.margin)
            y += _HEADING + len(each.at) + 0.3
        figure.legend(handles=side_handles(_SIDES), loc="lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _limits(every: list[Interval], margin: float) -> tuple[float, float]:
    """The span of the axis in points, with far wider intervals cut off."""
    most = max(4 * margin, 3 * max(abs(each.mean) for each in every))
    right = min(most, max(2 * margin, *(each.high for each in every)))
    left = min(most, max(margin, *(-each.low for each in every)))
    return -108 * left, 108 * right  # in points, with some room


def _draw_case(figure: Figure, axes: Axes, found: Sensitivity, top: float, margin: float) -> None:
    transform = blended_transform_factory(figure.transFigure, axes.transData)
    axes.plot([0.015, 0.985], [top] * 2, transform=transform, color="#C8C8C8", linewidth=1, clip_on=False)
    centre = top + 0.7
    beside(figure, axes, 0.015, centre, short_budget(found.case.budget), weight="bold")
    beside(figure, axes, 0.31, centre, f"{found.rival} against {found.case.rule}'s {found.case.schedule}")
    said = steadiness_text(found.steadiness)
    beside(figure, axes, 0.985, centre, said, _COLOURS[found.steadiness], "right", "bold")
    draw_margin(axes, (top + _HEADING, top + _HEADING + len(found.at)), margin)
    for line, each in enumerate(found.at):
        y, outcome = top + _HEADING + line + 0.5, side(each.difference, margin)
        low, mean, high = (100 * value for value in (each.difference.low, each.difference.mean, each.difference.high))
        beside(figure, axes, 0.03, y, factor_text(each.factor))
        draw_interval(axes, y, (low, mean, high), outcome)
        beside(figure, axes, 0.705, y, signed(mean), COLOURS[outcome])
        beside(figure, axes, 0.775, y, f"[{signed(low)}, {signed(high)}]", INK)
        beside(figure, axes, 0.985, y, f"{each.runs} runs", GREY, "right")


def side(difference: Interval, margin: float) -> Outcome:
    """What one interval alone says of the rule."""
    if difference.low > margin:
        return "not near-optimal"
    return "near-optimal" if difference.high <= margin else "undecided"
