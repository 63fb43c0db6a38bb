import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from search import figures
from search.cost import COST_NAMES
from search.figures import TrialPoint
from search.findings import Findings

_POINTS = [TrialPoint("doubling", 900, 0.97), TrialPoint("uniform", 700, 0.96), TrialPoint("band", 400, 1.0)]


def _texts(figure):
    """Every visible text of a figure with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    beyond = {  # ticks off the axis keep a label that is not drawn
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in {*axis.get_major_ticks(), *axis.get_minor_ticks()} - {*axis._update_ticks()}
    }
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in texts if text not in beyond]


def _overlapping(figure):
    return [
        (a.get_text(), b.get_text())
        for (a, box), (b, other) in itertools.combinations(_texts(figure), 2)
        if box.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9))
    ]


@pytest.fixture(params=["confirmation", "ratios", *COST_NAMES])
def figure(request, findings):
    if request.param == "confirmation":
        return figures.confirmation(findings)
    if request.param == "ratios":
        return figures.ratios(findings)
    return figures.accuracy_against_cost(findings, _POINTS, request.param)


def test_labels_are_legible_inside_the_figure_and_apart(figure):
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in _texts(figure):
        assert text.get_fontsize() >= 9, text.get_text()
        assert box.x0 >= 0, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y1 <= height, text.get_text()
    assert not _overlapping(figure)


def test_overlapping_labels_would_be_noticed(findings):
    figure = figures.ratios(findings)
    figure.text(0.02, 0.93, "in the way of the title")
    assert _overlapping(figure)


def test_verdicts_are_words_and_not_colours_alone(findings):
    said = [text.get_text() for text, _ in _texts(figures.confirmation(findings))]
    for outcome, sign in figures.SIGNS.items():
        assert f"{sign} {outcome}" in said


def test_the_same_figure_is_the_same_file(findings):
    first, second = (figures.to_svg(figures.confirmation(findings)) for _ in range(2))
    assert first == second
    first, second = (figures.to_png(figures.ratios(findings)) for _ in range(2))
    assert first == second


def test_svg_loads_nothing(figure):
    svg = figures.to_svg(figure)
    assert "<image" not in svg
    assert 'href="http' not in svg
    assert "<dc:date" not in svg


def test_a_study_before_its_first_look_can_be_drawn(early):
    said = [text.get_text() for text, _ in _texts(figures.confirmation(early))]
    assert "no look yet" in said


@pytest.mark.parametrize("points", [[], _POINTS[:1], [TrialPoint("band", 5, 0.0), TrialPoint("band", 5, 0.0)]])
def test_few_trials_can_be_drawn(plan, points):
    nothing = Findings(plan, (), (), None)
    for cost in COST_NAMES:
        assert figures.to_svg(figures.accuracy_against_cost(nothing, points, cost))


def test_a_challenger_far_behind_does_not_squeeze_the_others(findings):
    axes = figures.confirmation(findings).axes[0]
    left, right = axes.get_xlim()
    assert -left <= 2.1 * right  # 5-5-5 is 9 points behind
