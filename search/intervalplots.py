"""Intervals against the margin, as plots to hover over: confirmation, and the same at other learning rates."""

from dataclasses import dataclass, field

from plotly import graph_objects as go

from search.drawing import COLOURS, INK, SIGNS, signed
from search.figures import SIDES, side_of
from search.findings import Confirmed, Finding, Findings
from search.plotstyle import BAND, blank
from search.probefigures import side
from search.probewording import factor_text, steadiness_text
from search.soundness import Sensitivity
from search.verdict import Interval, Outcome
from search.wording import OUTCOMES, number, origin_text, percent, score_text, short_budget

_MARKS: dict[Outcome, str] = {"near-optimal": "circle", "not near-optimal": "diamond", "undecided": "square"}


@dataclass(frozen=True)
class _Line:
    """A row of an interval plot: a heading where it has no interval."""

    label: str
    interval: Interval | None = None
    side: Outcome = "undecided"
    hover: str = ""


@dataclass
class _Rows:
    """Rows of an interval plot, in points; top to bottom."""

    lines: list[_Line] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A row of words only."""
        self.lines.append(_Line(f"<b>{text}</b>"))


def confirmation(findings: Findings) -> go.Figure:
    """Per case: every challenger's mean test accuracy minus the rule's, with simultaneous limits and the margin."""
    rows, margin = _Rows(), findings.plan.config.confirm.margin
    for finding in findings.findings:
        rows.heading(_case_heading(finding))
        comparisons = finding.verdict.comparisons
        for each in sorted(finding.challengers, key=lambda each: -comparisons[str(each.schedule)].mean):
            known = comparisons[str(each.schedule)]
            label = f"{each.schedule}, {origin_text(each.origin)}"
            if known.runs:
                interval = Interval(known.mean, known.low, known.high)
                rows.lines.append(_Line(label, interval, side_of(known, margin), _accuracies(finding.rule, each)))
    score = score_text(findings.plan.config.training.score)
    return _interval_plot(rows, f"test {score} minus the rule's, in points", margin)


def _case_heading(finding: Finding) -> str:
    outcome, case = finding.verdict.outcome, finding.case
    return f"{short_budget(case.budget)}: {case.rule} {case.schedule} {SIGNS[outcome]} {outcome}"


def _accuracies(*confirmed: Confirmed) -> str:
    return "<br>".join(
        f"{each.schedule}: {percent(each.accuracy.mean)}, {each.runs} runs" for each in confirmed if each.accuracy
    )


def learning_rates(findings: Findings) -> go.Figure:
    """Per case: the rival's mean test accuracy minus the rule's at half, the same and double the learning rate."""
    rows, margin = _Rows(), findings.plan.config.confirm.margin
    for found in findings.sensitivities:
        rows.heading(_sensitivity_heading(found))
        for each in found.at:
            where, runs = side(each.difference, margin), f"{each.runs} runs of each"
            rows.lines.append(_Line(factor_text(each.factor), each.difference, where, runs))
    score = score_text(findings.plan.config.training.score)
    return _interval_plot(rows, f"test {score} minus the rule's, in points", margin)


def _sensitivity_heading(found: Sensitivity) -> str:
    case = found.case
    return f"{short_budget(case.budget)}: {found.rival} against {case.schedule}, {steadiness_text(found.steadiness)}"


def _interval_plot(rows: _Rows, axis: str, margin: float) -> go.Figure:
    """Rows from top to bottom, each interval in the colour and mark of its side of the margin."""
    figure = blank(165 + 27 * len(rows.lines))
    for outcome in OUTCOMES:
        own = [(y, line) for y, line in enumerate(rows.lines) if line.interval and line.side == outcome]
        intervals = [line.interval for _, line in own if line.interval]
        figure.add_trace(
            go.Scatter(
                x=[100 * each.mean for each in intervals],
                y=[y for y, _ in own],
                error_x={
                    "array": [100 * (each.high - each.mean) for each in intervals],
                    "arrayminus": [100 * (each.mean - each.low) for each in intervals],
                    "color": COLOURS[outcome],
                    "thickness": 2.2,
                    "width": 0,
                },
                text=[f"{line.label}: {_limits(line.interval)}<br>{line.hover}" for _, line in own if line.interval],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                marker={"symbol": _MARKS[outcome], "color": COLOURS[outcome], "size": 9},
                name=SIDES[outcome],
            )
        )
    figure.add_vrect(0, 100 * margin, fillcolor=BAND, line_width=0, layer="below")
    figure.add_vline(0, line={"color": INK, "width": 1.2})
    figure.add_vline(100 * margin, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title=f"{axis};<br>grey: within the margin of {number(margin)}", zeroline=False)
    headings = [(y, line.label) for y, line in enumerate(rows.lines) if line.interval is None]
    for y, label in headings:
        said = {"xref": "paper", "x": 0, "xanchor": "left", "showarrow": False, "xshift": -160, "align": "left"}
        figure.add_annotation(y=y, text=label, bgcolor="#FFFFFF", **said)
    labelled = [(y, line.label) for y, line in enumerate(rows.lines) if line.interval]
    figure.update_yaxes(
        range=[len(rows.lines) - 0.4, -0.7],
        tickvals=[y for y, _ in labelled],
        ticktext=[label for _, label in labelled],
        showgrid=False,
        zeroline=False,
    )
    figure.update_layout(margin={"l": 165, "b": 110})
    return figure


def _limits(interval: Interval) -> str:
    return f"{signed(100 * interval.mean)} ({signed(100 * interval.low)} to {signed(100 * interval.high)})"
