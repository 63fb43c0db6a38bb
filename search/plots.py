"""What a study found, as plots to hover over and zoom into: for the report's page, the dashboard and notebooks.

The same pictures as `figures` and its neighbours draw for paper, from the same findings. Owns marks and layout only.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from plotly import graph_objects as go

from search.cost import CostName, amount
from search.drawing import BLUE, GREY, INK, VERMILLION
from search.figures import COST_LABELS, TrialPoint, brief_amount, error_of
from search.findings import Findings
from search.growth import BestRatio
from search.plotstyle import BAND, blank, mark_line, panels
from search.ratiofigures import falloff_span, shows_falloff
from search.stagefigures import StageBars
from search.wording import percent, ratio, score_text, short_budget

_SAMPLED = "#9A9A9A"
_MOST_SAMPLED = 500  # shown; ten times as many look the same and make a page as much heavier
_ACCURACIES = (10, 30, 50, 70, 80, 85, 90, 93, 95, 96, 97, 98, 98.5, 99, 99.5, 99.8, 99.9)
_NAMES: dict[CostName, str] = {
    "params": "parameters",
    "macs": "MACs",
    "activations": "activations",
    "memory": "memory",
}
_RULE_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito's; shapes differ as well
_RULE_MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "bowtie", "hourglass", "star-square")


def accuracy_against_cost(findings: Findings, trials: Sequence[TrialPoint], cost: CostName) -> go.Figure:
    """Every trial's validation accuracy against one cost: rules as curves through their members, the front, budgets.

    The front is the best validation accuracy from left to right, a description of the search and not a finding.
    """
    score = score_text(findings.plan.config.training.score)
    figure = blank(480)
    rules = findings.plan.config.rules
    judged, compared = ([str(rule) for rule in which] for which in (rules.judged, rules.compared))
    sampled = [trial for trial in trials if trial.origin not in (*judged, *compared)]
    front = _front(trials, cost)
    shown = _thinned(sampled, front)
    said = "sampled" if len(shown) == len(sampled) else f"sampled ({len(shown):,} of {len(sampled):,} shown)"
    figure.add_trace(_points(shown, cost, said, mode="markers", marker={"color": _SAMPLED, "size": 5}))
    line = {"color": INK, "width": 1.4, "shape": "hv"}
    figure.add_trace(_points(front, cost, "best so far, by cost", mode="lines", line=line))
    for rule, mark, colour in zip(compared, cycle(_RULE_MARKS), cycle(_RULE_COLOURS), strict=False):
        own = _curve(trials, rule, cost)
        figure.add_trace(_points(own, cost, rule, **_curve_style(mark, colour, 8, 1)))
    for rule, mark in zip(judged, cycle(("star", "cross", "x")), strict=False):
        own = _curve(trials, rule, cost)
        figure.add_trace(_points(own, cost, f"{rule} (judged)", **_curve_style(mark, VERMILLION, 13, 2.4)))
    for budget in findings.plan.config.budgets:
        if budget.cost == cost:
            mark_line(figure, budget.limit, f"budget {amount(cost, budget.limit)}")
    figure.update_xaxes(type="log", title=COST_LABELS[cost], **_cost_ticks(cost))
    errors = [100 * error_of(trial.accuracy) for trial in trials] or [1.0, 10.0]
    figure.update_yaxes(
        type="log",
        autorange="reversed",
        title=f"validation {score} (%)",
        tickvals=[100 - each for each in _ACCURACIES if min(errors) / 1.3 <= 100 - each <= max(errors) * 1.3],
        ticktext=[f"{each:g}" for each in _ACCURACIES if min(errors) / 1.3 <= 100 - each <= max(errors) * 1.3],
    )
    return figure


def _points(trials: Sequence[TrialPoint], cost: CostName, name: str, **style: Any) -> go.Scatter:  # noqa: ANN401
    """A trace of trials, errors in percent, with schedule, accuracy and costs on hovering."""
    known = trials[0].costs.known if trials else ()
    costs = "".join(f"%{{customdata[{place}]}} {_NAMES[each]}<br>" for place, each in enumerate(known, start=1))
    return go.Scatter(
        x=[trial.costs[cost] for trial in trials],
        y=[round(100 * error_of(trial.accuracy), 4) for trial in trials],
        text=[str(trial.schedule) for trial in trials],
        customdata=[
            [percent(trial.accuracy), *(amount(each, trial.costs[each]) for each in known)] for trial in trials
        ],
        hovertemplate=f"<b>%{{text}}</b>: %{{customdata[0]}}<br>{costs}<b>{name}</b><extra></extra>",
        name=name,
        **style,
    )


def _thinned(sampled: Sequence[TrialPoint], front: Sequence[TrialPoint]) -> list[TrialPoint]:
    """At most so many of them, evenly over the search, and whatever of them is on the front."""
    if len(sampled) <= _MOST_SAMPLED:
        return list(sampled)
    chosen = {place * len(sampled) // _MOST_SAMPLED for place in range(_MOST_SAMPLED)}
    best = set(front)
    return [trial for place, trial in enumerate(sampled) if place in chosen or trial in best]


def _curve_style(mark: str, colour: str, size: float, width: float) -> dict[str, Any]:
    return {
        "mode": "lines+markers",
        "marker": {"symbol": mark, "color": colour, "size": size, "line": {"color": "#FFFFFF", "width": 1}},
        "line": {"color": colour, "width": width},
    }


def _curve(trials: Sequence[TrialPoint], rule: str, cost: CostName) -> list[TrialPoint]:
    return sorted((trial for trial in trials if trial.origin == rule), key=lambda trial: trial.costs[cost] or 0)


def _front(trials: Sequence[TrialPoint], cost: CostName) -> list[TrialPoint]:
    """The trials more accurate than all cheaper ones, by rising cost."""
    front: list[TrialPoint] = []
    for trial in sorted(trials, key=lambda trial: (trial.costs[cost], -trial.accuracy)):
        if not front or trial.accuracy > front[-1].accuracy:
            front.append(trial)
    return front


def _cost_ticks(cost: CostName) -> dict[str, Any]:
    at = [2**power for power in range(48)] if cost == "memory" else [m * 10**p for p in range(14) for m in (1, 2, 5)]
    return {"tickvals": at, "ticktext": [brief_amount(cost, value) for value in at]}


def ratios(findings: Findings) -> go.Figure:
    """Per budget: the growth ratio that serves best with its interval, and where doubling lies."""
    found = findings.rule_of_thumb
    figure = blank(150 + 38 * len(found))
    intervals = [each.interval for each in found]
    figure.add_trace(
        go.Scatter(
            x=[each.ratio for each in intervals],
            y=[short_budget(each.budget) for each in found],
            error_x={
                "array": [each.high - each.ratio for each in intervals],
                "arrayminus": [each.ratio - each.low for each in intervals],
                "color": BLUE,
                "thickness": 2.2,
                "width": 0,
            },
            text=[f"{ratio(each.ratio)} ({ratio(each.low)} to {ratio(each.high)})" for each in intervals],
            hovertemplate="%{y}: %{text}<extra></extra>",
            mode="markers",
            marker={"color": BLUE, "size": 10},
            showlegend=False,
        )
    )
    mark_line(figure, 2, "doubling")
    figure.update_xaxes(title="filters of a stage over filters of the stage before", **_ratio_axis())
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def falloff(findings: Findings) -> go.Figure:
    """Per budget: accuracy minus doubling's against the growth ratio, predicted and confirmed."""
    shown = [each for each in findings.rule_of_thumb if shows_falloff(each)]
    margin = 100 * findings.plan.config.confirm.margin
    figure = panels([each.budget for each in shown], 190, 100)
    for place, each in enumerate(shown):
        at = {"row": place // 2 + 1, "col": place % 2 + 1}
        figure.update_yaxes(range=falloff_span(each, margin), **at)
        for trace in _falloff_traces(each, first=place == 0):
            figure.add_trace(trace, **at)
        figure.add_hrect(0, margin, fillcolor=BAND, line_width=0, layer="below", **at)
        figure.add_hline(0, line={"color": INK, "width": 1}, **at)
        figure.add_vline(2, line={"color": INK, "width": 1.2, "dash": "dash"}, **at)
    figure.update_xaxes(title="growth ratio; doubling is 2", **_ratio_axis())
    figure.update_yaxes(title="points over doubling", col=1)
    figure.update_yaxes(zeroline=False)
    return figure


def _falloff_traces(best: BestRatio, *, first: bool) -> list[go.Scatter]:
    curve = [(each, each.gain) for each in best.curve if each.gain]
    places = [each.ratio for each, _ in curve]
    mean, low, high = ([100 * getattr(gain, part) for _, gain in curve] for part in ("mean", "low", "high"))
    what = "known" if best.exact else "predicted"
    band = {"x": places, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": "band"}
    traces = [
        go.Scatter(y=low, showlegend=False, **band),
        go.Scatter(
            y=high, fill="tonexty", fillcolor="rgba(0,114,178,0.18)", name="95 % interval", showlegend=first, **band
        ),
        go.Scatter(
            x=places,
            y=mean,
            text=[str(each.schedule) for each, _ in curve],
            hovertemplate="ratio %{x:.3g}: %{text}<br>%{y:+.2f} points<extra>" + what + "</extra>",
            mode="lines",
            line={"color": BLUE, "width": 2},
            name=what,
            legendgroup=what,
            showlegend=first,
        ),
    ]
    confirmed = [(each, each.gain) for each in best.confirmed if each.gain]
    traces.append(
        go.Scatter(
            x=[each.ratio for each, _ in confirmed],
            y=[100 * gain.mean for _, gain in confirmed],
            error_y={
                "array": [100 * (gain.high - gain.mean) for _, gain in confirmed],
                "arrayminus": [100 * (gain.mean - gain.low) for _, gain in confirmed],
                "color": VERMILLION,
                "width": 0,
            },
            text=[f"{each.schedule}, {each.runs} runs" for each, _ in confirmed],
            hovertemplate="ratio %{x:.3g}: %{text}<br>%{y:+.2f} points<extra>confirmed</extra>",
            mode="markers",
            marker={"symbol": "diamond", "color": VERMILLION, "size": 9, "line": {"color": "#FFFFFF", "width": 1}},
            name="confirmed",
            legendgroup="confirmed",
            showlegend=first,
        )
    )
    return traces[2:] if best.exact else traces


def stages(bars: Sequence[StageBars]) -> go.Figure:
    """Per budget: filters of every stage, of the judged rule's schedule beside the best one."""
    figure = panels([each.budget for each in bars], 160, 75)
    for place, each in enumerate(bars):
        for schedule, name, colour in ((each.rule, each.rule_name, GREY), (each.best, "best", BLUE)):
            filters = list(schedule.filters)
            figure.add_trace(
                go.Bar(
                    x=[f"stage {number}" for number in range(1, len(filters) + 1)],
                    y=filters,
                    text=filters,
                    textposition="outside",
                    cliponaxis=False,
                    name=name,
                    legendgroup=name,
                    showlegend=place == 0,
                    marker={"color": colour},
                    hovertemplate=f"{schedule}, {name}: " + "%{y} filters in %{x}<extra></extra>",
                ),
                row=place // 2 + 1,
                col=place % 2 + 1,
            )
        highest = max(*each.rule.filters, *each.best.filters)
        figure.update_yaxes(range=[0, 1.2 * highest], row=place // 2 + 1, col=place % 2 + 1)  # a label fits above
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_yaxes(title="filters", col=1)
    return figure


def _ratio_axis() -> dict[str, Any]:
    at = [0.25, 0.5, 1, 2, 4]
    return {"type": "log", "range": [-0.64, 0.64], "tickvals": at, "ticktext": [ratio(each) for each in at]}
