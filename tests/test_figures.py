import itertools
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from planted_findings import make_findings, make_plan

from search import drawing, figures, probefigures, ratiofigures, stagefigures
from search.cost import COST_NAMES, Costs
from search.figures import TrialPoint
from search.findings import Findings
from search.schedule import FilterSchedule


def _point(origin, cost, accuracy):
    return TrialPoint(origin, FilterSchedule((4, 8)), Costs(cost, cost, cost, cost), accuracy)


_POINTS = [_point("doubling", 900, 0.97), _point("uniform", 700, 0.96), _point("band", 400, 1.0)]


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


_DRAWN = {
    "stages": lambda findings: stagefigures.stages(stagefigures.stage_bars(findings, _POINTS)),
    "confirmation": figures.confirmation,
    "ratios": ratiofigures.ratios,
    "falloff": ratiofigures.falloff,
    "learning rates": probefigures.learning_rates,
}


@pytest.fixture(params=[*_DRAWN, *COST_NAMES])
def figure(request, findings):
    if request.param in _DRAWN:
        return _DRAWN[request.param](findings)
    return figures.accuracy_against_cost(findings, _POINTS, request.param)


def test_labels_are_legible_inside_the_figure_and_apart(figure):
    _check_labels(figure)


@pytest.mark.parametrize("name", ["confirmation", "learning rates"])
def test_a_balanced_studys_longer_labels_fit_too(name):
    figure = _DRAWN[name](make_findings(make_plan(training={"score": "balanced_accuracy"})))
    assert any(text.get_text().startswith("test balanced accuracy minus the rule's") for text, _ in _texts(figure))
    _check_labels(figure)


def _check_labels(figure):
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in _texts(figure):
        assert text.get_fontsize() >= 9, text.get_text()
        assert box.x0 >= 0, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y1 <= height, text.get_text()
    assert not _overlapping(figure)


def test_overlapping_labels_would_be_noticed(findings):
    figure = ratiofigures.ratios(findings)
    figure.text(0.02, 0.93, "in the way of the title")
    assert _overlapping(figure)


def test_verdicts_are_words_and_not_colours_alone(findings):
    said = [text.get_text() for text, _ in _texts(figures.confirmation(findings))]
    for outcome, sign in drawing.SIGNS.items():
        assert f"{sign} {outcome}" in said


def test_the_same_figure_is_the_same_file(findings):
    first, second = (drawing.to_svg(figures.confirmation(findings)) for _ in range(2))
    assert first == second
    first, second = (drawing.to_png(ratiofigures.ratios(findings)) for _ in range(2))
    assert first == second


def test_svg_loads_nothing(figure):
    svg = drawing.to_svg(figure)
    assert "<image" not in svg
    assert 'href="http' not in svg
    assert "<dc:date" not in svg


def test_a_study_before_its_first_look_can_be_drawn(early):
    said = [text.get_text() for text, _ in _texts(figures.confirmation(early))]
    assert "no look yet" in said


@pytest.mark.parametrize("points", [[], _POINTS[:1], [_point("band", 5, 0.0), _point("band", 5, 0.0)]])
def test_few_trials_can_be_drawn(plan, points):
    nothing = Findings(plan, (), (), None)
    for cost in COST_NAMES:
        assert drawing.to_svg(figures.accuracy_against_cost(nothing, points, cost))


def test_a_challenger_far_behind_does_not_squeeze_the_others(findings):
    axes = figures.confirmation(findings).axes[0]
    left, right = axes.get_xlim()
    assert -left <= 2.1 * right  # 5-5-5 is 9 points behind


def test_falloff_is_drawn_against_doubling_with_what_was_confirmed(findings):
    figure = ratiofigures.falloff(findings)
    assert len(figure.axes) == 3
    axes = figure.axes[0]
    (curve,) = [line for line in axes.lines if len(line.get_xdata()) > 2]
    at = dict(zip(curve.get_xdata(), curve.get_ydata(), strict=True))
    assert at[2.0] == pytest.approx(0)
    assert max(at, key=at.get) == pytest.approx(1.19, abs=0.01)
    diamonds = [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == [(1.0, pytest.approx(2.0))]
    assert axes.get_ylim()[1] > 2.2


def test_falloff_needs_doubling(findings):
    best = findings.rule_of_thumb[0]
    assert ratiofigures.shows_falloff(best)
    assert not ratiofigures.shows_falloff(replace(best, curve=tuple(replace(each, gain=None) for each in best.curve)))
    assert not ratiofigures.shows_falloff(replace(best, curve=()))


def test_learning_rates_are_told_in_words(findings):
    said = [text.get_text() for text, _ in _texts(probefigures.learning_rates(findings))]
    for words in ("✗ verdict turns", "✓ verdict holds", "? undecided anyway"):
        assert said.count(words) == 1
    assert said.count("half the learning rate") == said.count("double the learning rate") == 3
