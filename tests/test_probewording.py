import io
from dataclasses import replace

import pytest
from rich.console import Console

from search import display, probewording
from search.verdict import Interval


def test_a_verdict_that_turns_names_the_learning_rate_that_turns_it(findings, plan):
    turns, holds, idle = findings.sensitivities
    said = probewording.sensitivity_sentence(turns, "not near-optimal", plan.config.confirm)
    assert said.startswith(
        "Within 1,500 parameters the verdict turns: doubling is not near-optimal, yet at double the"
    )
    assert f"{turns.rival} is not better by more than the margin of 0.5 points" in said
    assert "half" not in said
    said = probewording.sensitivity_sentence(holds, "near-optimal", plan.config.confirm)
    assert "doubling is near-optimal against 9-9-9 at half and at double the learning rate too" in said
    assert "undecided" in probewording.sensitivity_sentence(idle, "undecided", plan.config.confirm)


def test_a_near_optimal_rule_that_turns_is_beaten(findings, plan):
    turns = replace(findings.sensitivities[0], at=findings.sensitivities[0].at[:2])  # half and the same
    said = probewording.sensitivity_sentence(turns, "near-optimal", plan.config.confirm)
    assert f"at half the learning rate {turns.rival} beats it by more than the margin" in said


def test_an_open_case_says_how_to_close_it(findings, plan):
    left = replace(findings.sensitivities[1], steadiness="open")
    assert "soundness.learning_rate_runs" in probewording.sensitivity_sentence(
        left, "near-optimal", plan.config.confirm
    )


def test_undecided_cases_share_a_sentence(findings):
    _, holds, idle = findings.sensitivities
    said = probewording.sensitivity_sentences(findings, [idle, holds, idle])
    assert len(said) == 2
    assert said[1].startswith("Within 500 activations there is no verdict to turn")


def test_readings_follow_the_interval(findings):
    misleads, fair, few = findings.fidelity_checks
    assert "misleads" in probewording.fidelity_reading(misleads)
    assert probewording.fidelity_reading(fair) == "no sign that it misleads"
    assert "too few schedules" in probewording.fidelity_reading(few)
    assert "seeds alone" in probewording.fidelity_reading(replace(fair, between_brief=0.1))
    assert "no sign" in probewording.fidelity_reading(replace(fair, shortfall=Interval(0.2, 0.1, 0.3)))


def test_a_warning_comes_where_brief_training_misleads_and_nowhere_else(findings):
    misleads, *others = findings.fidelity_checks
    said = probewording.fidelity_warning(misleads)
    assert "15 epochs of training are no fair judge of 60" in said
    assert "(by 0.20 to 0.90)" in said
    assert [probewording.fidelity_warning(check) for check in others] == [None, None]


@pytest.mark.parametrize("doubtful", [True, False])
def test_the_terminal_has_a_line_only_where_something_turns_or_misleads(findings, monkeypatch, doubtful):
    text = io.StringIO()
    monkeypatch.setattr(display, "out", Console(file=text, width=1000))
    if not doubtful:
        findings = replace(
            findings, sensitivities=findings.sensitivities[1:], fidelity_checks=findings.fidelity_checks[1:]
        )
    display.show_outcome(findings, [])
    lines = [line for line in text.getvalue().splitlines() if "verdict turns" in line or "no fair judge" in line]
    assert len(lines) == 2 * doubtful
    assert "came true" in text.getvalue()


@pytest.mark.parametrize(("probability", "warned"), [(None, False), (0.5, False), (0.51, True), (1.0, True)])
def test_a_near_optimal_verdict_with_something_better_likely_unexplored_is_qualified(findings, probability, warned):
    near = next(each for each in findings.findings if each.verdict.outcome == "near-optimal")
    said = probewording.unexplored_warning(replace(near, unexplored_probability=probability))
    assert (said is not None) == warned
    assert not warned or "near-optimal against what was confirmed, but" in said
    others = [each for each in findings.findings if each.verdict.outcome != "near-optimal"]
    assert all(probewording.unexplored_warning(replace(each, unexplored_probability=1.0)) is None for each in others)


def test_networks_that_learned_nothing_are_told_of_before_any_verdict(findings):
    finding = findings.findings[0]
    reached = max(finding.rule.accuracy.mean, finding.best.accuracy.mean)
    said = probewording.unlearned_warning(finding, reached - 0.01)
    assert said.startswith("1,500 parameters: hardly anything was learned, since always naming the commonest class")
    assert f"scores {100 * (reached - 0.01):.2f} % and the best confirmed {100 * reached:.2f} %" in said
    assert probewording.unlearned_warning(finding, reached - 0.03) is None
    assert probewording.unlearned_warning(finding, None) is None
    assert findings.blind_score == pytest.approx(0.25)
    assert not [line for line in probewording.warnings(findings) if "hardly anything" in line]
