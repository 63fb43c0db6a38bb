import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import wording
from search.cost import Budget
from search.findings import COLLAPSE
from search.growth import BestRatio
from search.surrogate import RatioInterval
from search.verdict import Interval


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("params <= 1500", "1,500 parameters"),
        ("macs <= 40k", "40,000 multiply-adds (MACs) per image"),
        ("activations <= 500", "500 activations"),
        ("memory <= 1 MiB", "1.0 MiB of training memory"),
        ("memory <= 1100000", "1.05 MiB (1,100,000 bytes) of training memory"),
        ("memory <= 900", "900 B of training memory"),
    ],
)
def test_budget_text(budget, said):
    assert wording.budget_text(Budget.parse(budget)) == said


@given(st.floats(-1, 1))
def test_points_say_the_difference_to_a_hundredth(fraction):
    text = wording.points(fraction)
    shown, unit = text.split()
    assert abs(float(shown.replace("\N{MINUS SIGN}", "-")) - 100 * fraction) <= 0.005 + 1e-9
    assert (unit == "point") == (shown in ("1", "\N{MINUS SIGN}1"))
    assert "-" not in shown
    assert shown != "\N{MINUS SIGN}0"


def test_an_estimated_chance_never_claims_certainty():
    assert [wording.chance(p) for p in (0.0, 0.004, 0.12, 1.0)] == ["below 1 %", "below 1 %", "12 %", "above 99 %"]


def test_headline_of_a_rule_that_is_not_near_optimal(findings, plan):
    finding = findings.findings[0]
    text = wording.headline(finding, plan.config.confirm)
    assert text.startswith("Within 1,500 parameters, doubling is not near-optimal: 8-8-8 classifies 2 points more")
    assert "means of 16 runs each" in text
    low, high = (100 * limit for limit in (finding.verdict.regret.low, finding.verdict.regret.high))
    assert f"loses between {low:.2f} and {high:.2f} points" in text
    assert "more than the 0.5 points one is willing to call nothing" in text
    assert wording.price_of_decision(finding) is None


def test_balanced_accuracy_is_called_so(findings, plan):
    finding, confirm = findings.findings[0], plan.config.confirm
    text = wording.headline(finding, confirm, "balanced_accuracy")
    rule = finding.case.schedule
    assert f": 8-8-8 has a balanced accuracy on the test images 2 points above that of doubling's {rule} (mean" in text
    assert "With the test images redrawn within their classes (boot" in wording.image_sentence(
        finding, confirm, "balanced_accuracy"
    )
    weighted = wording.weighted_sentence(findings.weighted, 0.01, 0.02, "balanced_accuracy")
    assert weighted.startswith("Paying 1 point of balanced accuracy for halving")
    assert "validation balanced accuracy of 96.10 %" in weighted


def test_headline_of_a_near_optimal_rule_claims_the_confirmed_challengers_only(findings, plan):
    finding = findings.findings[1]
    text = wording.headline(finding, plan.config.confirm)
    assert f"none of the 2 schedules confirmed against its {finding.case.schedule} is better by more than" in text
    assert f"loses at most {100 * finding.verdict.regret.high:.2f}".rstrip("0") in text
    assert wording.price_of_decision(finding) is None
    assert "probability of 12 %" in wording.unexplored_sentence(finding, plan.config.confirm)


def test_headline_and_price_of_an_undecided_case(findings, plan):
    finding = findings.findings[2]
    text = wording.headline(finding, plan.config.confirm)
    assert "it is undecided whether doubling is near-optimal: on the mean of 128 runs each, 4-6-9 leads" in text
    assert "the margin of 0.5 points lies between" in text
    price = wording.price_of_decision(finding)
    needed = finding.verdict.runs_to_decide
    assert price == (
        f"About {2 * (needed - 128):,} more runs would likely decide it: {needed:,} in place of 128 for "
        f"{finding.case.schedule} and for 4-6-9."
    )
    assert "aims at a chance of 80 %" in wording.forecast_note(findings.findings)
    assert wording.forecast_note(findings.findings[:2]) is None


def test_forecasts_came_true_as_often_as_the_calibration_measured():
    prices = Path(__file__).parent.parent / "studies" / "calibration" / "prices.csv"
    shares = [float(row["share"]) for row in csv.DictReader(prices.read_text().splitlines())]
    assert (round(min(shares), 2), round(max(shares), 2)) == wording.FORECASTS_KEPT


def test_a_decision_has_no_price_where_no_run_differs_or_the_margin_is_too_near(findings):
    finding = findings.findings[2]
    unknown = replace(finding.verdict, runs_to_decide=None)
    assert "too close to the margin" in wording.price_of_decision(replace(finding, verdict=unknown))
    alike = {name: replace(each, low=-1, high=1) for name, each in unknown.comparisons.items()}
    said = wording.price_of_decision(replace(finding, verdict=replace(unknown, comparisons=alike)))
    assert "nothing is known of their spread" in said


def test_collapsed_runs_are_named_with_their_schedules(findings):
    finding = findings.findings[0]
    assert wording.collapse_sentence(finding) is None
    worse = replace(finding.challengers[1], collapsed=1)
    some = replace(finding, rule=replace(finding.rule, collapsed=2), challengers=(finding.challengers[0], worse))
    said = wording.collapse_sentence(some)
    assert f"2 of 16 runs of {finding.case.schedule} and 1 of 16 runs of 6-8-11." in said
    assert "8-8-8" not in said
    assert f"more than {100 * COLLAPSE:.0f} points below" in said


def test_an_undecided_rule_that_leads_is_not_said_to_trail(open_case, plan):
    text = wording.headline(open_case(16, -0.0001), plan.config.confirm)
    assert "no schedule confirmed leads" in text or "near-optimal:" in text
    assert " leads doubling's" not in text.replace("no schedule confirmed leads doubling's", "")


def test_before_the_first_look_nothing_is_claimed(early, plan):
    (finding,) = early.findings
    text = wording.headline(finding, plan.config.confirm)
    assert "have not been compared yet. The first look comes after 16 runs each." in text
    assert "confidence" not in text
    assert wording.price_of_decision(finding) == "What a decision costs cannot be said before the first look."
    assert wording.image_sentence(finding, plan.config.confirm) is None


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (Interval(0.02, 0.012, 0.028), "together), the loss is 1.2 to 2.8 points, wholly above the margin."),
        (Interval(0.001, -0.003, 0.004), "together), the loss is 0 to 0.4 points, wholly within the margin."),
        (Interval(0.02, 0.001, 0.04), "another test split might decide otherwise."),
    ],
)
def test_image_sentence_says_when_another_split_might_decide_otherwise(findings, plan, images, said):
    finding = findings.findings[0]
    finding = replace(finding, challengers=tuple(replace(each, images=images) for each in finding.challengers))
    assert wording.image_sentence(finding, plan.config.confirm).endswith(said)


def test_an_undecided_case_that_images_do_not_leave_open_is_left_open_by_seeds(findings, plan):
    finding = findings.findings[2]
    above = tuple(replace(each, images=Interval(0.02, 0.012, 0.028)) for each in finding.challengers)
    said = wording.image_sentence(replace(finding, challengers=above), plan.config.confirm)
    assert said.endswith("above the margin: what leaves it undecided is the spread between training seeds.")


@pytest.mark.parametrize(("high", "lies"), [(1.68, "outside"), (2.4, "inside")])
def test_ratio_sentence_says_where_doubling_lies(high, lies):
    text = wording.ratio_sentence(BestRatio(Budget("params", 1500), RatioInterval(1.19, 0.84, high)))
    assert "a factor of 1.19" in text
    assert text.endswith(f"doubling, 2, lies {lies}.")


def test_falloff_sentence_says_how_far_one_may_go(findings):
    best = findings.rule_of_thumb[0]
    low, high = best.within(0.005)
    said = wording.falloff_sentence(best, 0.005)
    assert said == f"Any ratio from {low:.2f} to {high:.2f} is predicted to lose no more than 0.5 points to it."
    assert "loses no more" in wording.falloff_sentence(replace(best, exact=True), 0.005)
    assert wording.falloff_sentence(best, 0) == "Every other ratio tried is predicted to lose more than 0 points."
    assert wording.falloff_sentence(replace(best, curve=()), 0.005) is None


def test_answer_names_every_budget_once(findings):
    assert wording.answer(findings.findings) == (
        "Doubling is not near-optimal within 1,500 parameters; near-optimal within 40,000 MACs; undecided within 500 "
        "activations."
    )
    assert wording.answer(()).startswith("Nothing is decided yet")
