import json

import pytest
from planted_findings import make_findings, make_plan

from search.cost import COST_NAMES, Costs
from search.figures import TrialPoint
from search.findings import Findings
from search.pictures import pictures
from search.schedule import FilterSchedule
from search.stagefigures import stage_bars


def _point(origin, cost, accuracy, *filters):
    return TrialPoint(origin, FilterSchedule(filters), Costs(cost, cost, cost, cost), accuracy)


_POINTS = [
    _point("doubling", 900, 0.97, 4, 8, 16),
    _point("doubling", 300, 0.91, 2, 4, 8),
    _point("uniform", 700, 0.96, 9, 9, 9),
    _point("band", 400, 1.0, 5, 6, 7),
    _point("band", 500, 0.9, 6, 6, 7),
]


@pytest.fixture
def found(findings):
    return {each.name: each for each in pictures(findings, _POINTS)}


def _json(picture):
    return json.loads(picture.plot().to_json())


def test_every_picture_has_words_and_both_forms(found):
    assert list(found)[:5] == ["confirmation", "stages", "ratios", "falloff", "learning-rates"]
    assert list(found)[5:] == [f"accuracy-{cost}" for cost in COST_NAMES]
    for each in found.values():
        assert len(each.alt) > 40
        assert each.reading.endswith(".")
        assert each.draw().axes
        assert _json(each)["data"]


def test_a_study_without_anything_has_no_pictures(plan):
    assert list(pictures(Findings(plan, (), (), None), [])) == []


def test_a_search_at_its_beginning_shows_trials_and_stages_only(plan):
    names = [each.name for each in pictures(Findings(plan, (), (), None), _POINTS)]
    assert names == ["stages", *(f"accuracy-{cost}" for cost in COST_NAMES)]


def test_a_rule_is_a_curve_through_its_members_by_rising_cost(found):
    curve = next(each for each in _json(found["accuracy-params"])["data"] if each["name"] == "doubling (judged)")
    assert curve["x"] == [300, 900]
    assert curve["y"] == pytest.approx([9.0, 3.0])
    assert "lines" in curve["mode"]
    assert curve["text"][1] == "4-8-16"
    assert curve["customdata"][1] == ["97.00 %", "900", "900", "900", "900 B"]
    assert "%{customdata[2]} MACs" in curve["hovertemplate"]


def test_of_many_sampled_trials_some_are_shown_and_the_front_whole(findings):
    many = [_point("gp", cost, 0.5 if cost != 901 else 0.9, 4, 4, cost) for cost in range(100, 3100)]
    found = {each.name: _json(each) for each in pictures(findings, [*_POINTS, *many]) if "accuracy" in each.name}
    for plot in found.values():
        shown = next(each for each in plot["data"] if each["name"].startswith("sampled"))
        assert shown["name"] == f"sampled ({len(shown['x']):,} of 3,002 shown)"
        assert 500 <= len(shown["x"]) <= 510
        assert 400 in shown["x"]  # on the front
        assert len(json.dumps(plot)) < 250_000  # so that a study keeps it


def test_labels_of_bars_stay_below_the_titles(found):
    plot = _json(found["stages"])
    for trace in plot["data"]:
        assert plot["layout"][trace["yaxis"].replace("y", "yaxis")]["range"][1] > 1.15 * max(trace["y"])


def test_the_front_holds_what_nothing_cheaper_beats(found):
    front = next(each for each in _json(found["accuracy-params"])["data"] if each["name"].startswith("best so far"))
    assert front["x"] == [300, 400]


def test_every_interval_of_the_confirmation_is_drawn_on_its_side(found, findings):
    plot = _json(found["confirmation"])
    drawn = {text.partition(",")[0]: trace["name"] for trace in plot["data"] for text in trace.get("text", ())}
    compared = {
        str(each.schedule): finding.verdict.comparisons[str(each.schedule)]
        for finding in findings.findings
        for each in finding.challengers
    }
    assert drawn.keys() == {name for name, known in compared.items() if known.runs}
    margin = findings.plan.config.confirm.margin
    for name, side in drawn.items():
        if compared[name].low > margin:
            assert side == "better by more than the margin"


def test_budgets_and_doubling_are_marked_where_they_lie(found):
    shapes = _json(found["accuracy-params"])["layout"]["shapes"]
    assert [shape["x0"] for shape in shapes] == [1500]
    assert _json(found["ratios"])["layout"]["shapes"][0]["x0"] == 2


def test_bars_show_the_best_confirmed_or_before_that_the_best_trial(findings, plan):
    confirmed = {each.budget: each for each in stage_bars(findings, _POINTS)}
    for finding in findings.findings:
        if finding.verdict.runs:
            assert confirmed[finding.case.budget].best == finding.best.schedule
            assert confirmed[finding.case.budget].rule == finding.case.schedule
    searched = stage_bars(Findings(plan, (), (), None), _POINTS)
    assert {each.best for each in searched if each.budget.limit > 900} == {FilterSchedule((5, 6, 7))}


def test_balanced_studies_name_their_score():
    found = pictures(make_findings(make_plan(training={"score": "balanced_accuracy"})), _POINTS)
    assert all("balanced accuracy" in each.alt for each in found if each.name.startswith("accuracy"))
