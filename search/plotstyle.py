"""What all plots share: size, look, panels, marked lines. The report's page puts its own colours in their place."""

import math
from collections.abc import Sequence

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from search.cost import Budget
from search.drawing import INK, PALE
from search.wording import short_budget

BAND = "#E4E4E4"


def panels(budgets: Sequence[Budget], height: int, gap: int) -> go.Figure:
    """A panel of `height` pixels for each budget, two in a row, rows `gap` pixels apart."""
    rows = -(-len(budgets) // 2)
    inside = rows * height + (rows - 1) * gap
    titles = [f"<b>within {short_budget(budget)}</b>" for budget in budgets]
    figure = make_subplots(rows, 2, subplot_titles=titles, vertical_spacing=gap / inside, horizontal_spacing=0.1)
    _style(figure, inside + 40 + 95)
    figure.update_layout(margin={"b": 95})
    figure.update_annotations(font_size=13)
    return figure


def blank(height: int) -> go.Figure:
    """An empty plot of this height in pixels; as wide as where it is shown."""
    figure = go.Figure()
    _style(figure, height)
    return figure


def _style(figure: go.Figure, height: int) -> None:
    """The look all plots share; the report's page puts its own colours in place of ink, white and greys."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 70, "r": 20, "t": 40, "b": 85},
        paper_bgcolor="#FFFFFF",
        plot_bgcolor="#FFFFFF",
        font={"family": 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif', "color": INK},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    figure.update_xaxes(gridcolor=PALE, linecolor="#8A8A8A", automargin=True)
    figure.update_yaxes(gridcolor=PALE, linecolor="#8A8A8A", automargin=True)


def mark_line(figure: go.Figure, x: float, text: str) -> None:
    """A dashed line across a logarithmic axis, labelled above; plotly wants the label's place as a logarithm."""
    figure.add_vline(x, line={"color": INK, "width": 1.2, "dash": "dash"})
    figure.add_annotation(x=math.log10(x), text=text, yref="paper", y=1, yanchor="bottom", showarrow=False)
