from dataclasses import replace

import pytest
from planted_findings import make_findings, make_plan

from search.findings import Findings
from search.laywording import how_sure, plain_answer, use_sentence
from search.tableconfig import TableConfig


def test_the_answer_names_what_is_lost_kept_and_open_in_that_order(findings):
    lost, kept, left = plain_answer(findings).split(". ")
    assert lost.startswith("Doubling costs accuracy: within 1,500 parameters, ")
    assert "more of every 100 test images right than" in lost
    assert kept.startswith("Within 40,000 MACs it is good enough")
    assert left == "Within 500 activations the trainings made so far do not tell."


def test_a_rule_that_never_loses_is_named_in_its_own_sentence(findings):
    kept = [each for each in findings.findings if each.verdict.outcome == "near-optimal"]
    assert "MACs doubling is good enough" in plain_answer(replace(findings, findings=tuple(kept)))


def test_balanced_accuracy_counts_no_images(findings):
    balanced = make_findings(make_plan(training={"score": "balanced_accuracy"}))
    assert "of every 100 test images" not in plain_answer(balanced)
    assert "has a balanced accuracy about" in plain_answer(balanced)


def test_without_a_case_nothing_is_claimed(plan):
    nothing = Findings(plan, (), (), None)
    assert plain_answer(nothing).startswith("Nothing is known yet")
    assert how_sure(nothing).startswith("How sure this is cannot be said")


def test_each_verdict_says_what_to_use(findings):
    said = {each.verdict.outcome: use_sentence(each, findings.plan.config.confirm) for each in findings.findings}
    lost = next(each for each in findings.findings if each.verdict.outcome == "not near-optimal")
    assert f"{lost.best.schedule} (" in said["not near-optimal"]
    assert f"not doubling's {lost.case.schedule}" in said["not near-optimal"]
    assert (
        "within the margin" in said["near-optimal"]
        or "nothing tested is better" in said["near-optimal"]
        or ("differ by less than the margin" in said["near-optimal"])
    )
    assert "for now" in said["undecided"]


def test_a_rule_that_leads_is_what_to_use(findings):
    for finding in findings.findings:
        alone = replace(finding, verdict=replace(finding.verdict, best=None))
        if finding.verdict.outcome != "not near-optimal":
            assert f"doubling's {finding.case.schedule}" in use_sentence(alone, findings.plan.config.confirm)


def test_before_the_first_look_nothing_is_recommended(early):
    confirm = early.plan.config.confirm
    assert all(use_sentence(each, confirm).endswith(": nothing yet.") for each in early.findings)


def test_how_sure_tells_trainings_the_share_of_wrong_answers_and_what_nobody_tested(findings):
    sure = how_sure(findings)
    assert "trainings of either schedule, scored on test images that the search had not seen" in sure
    assert "wrong about the schedules compared with a probability of at most 5 %." in sure
    assert "what leads so far may not lead in the end" in sure
    kept = next(each for each in findings.findings if each.verdict.outcome == "near-optimal")
    assert f"{round(100 * kept.unexplored_probability)} % within 40,000 MACs, by the model of the search." in sure


def test_what_is_open_is_no_answer_with_an_error_rate(findings):
    left = tuple(each for each in findings.findings if each.verdict.outcome == "undecided")
    assert "probability" not in how_sure(replace(findings, findings=left))


def test_a_table_has_neither_images_nor_trainings(findings):
    surface = {"best_ratio": 1.0, "strength": 0.1, "size_gain": 0.1, "accuracy": 0.9}
    images = {"channels": 1, "height": 8, "width": 8, "classes": 10, "batch_size": 64}
    table = TableConfig.model_validate({"surface": surface, "images": images, "noise_sd": 0.01})
    config = findings.plan.config.model_copy(update={"table": table})
    looked_up = replace(findings, plan=replace(findings.plan, config=config))
    said = plain_answer(looked_up) + how_sure(looked_up)
    assert "images" not in said
    assert "scored on" not in said
    assert "points more accurate than" in said
    assert "draws of either schedule from the table" in said


def test_what_is_lost_is_the_difference_of_the_means_shown(findings):
    lost = next(each for each in findings.findings if each.verdict.outcome == "not near-optimal")
    gain = 100 * (lost.best.accuracy.mean - lost.rule.accuracy.mean)
    assert f"about {gain:.2f}".rstrip("0").rstrip(".") in plain_answer(findings)


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_share_of_wrong_answers_follows_the_confidence(confidence):
    found = make_findings(make_plan(confirm={"confidence": confidence}))
    assert f"at most {round(100 * (1 - confidence))} %." in how_sure(found)
