"""The answer for who reads nothing else: what was found, what to use and how sure that is, without the field's words.

Owns those sentences; `wording` has the exact ones.
"""

from collections.abc import Iterator, Sequence

from search.config import ConfirmConfig
from search.findings import Finding, Findings
from search.verdict import Outcome
from search.wording import capital, chance, counted, listed, number, percent, points, score_text, share, short_budget


def plain_answer(findings: Findings) -> str:
    """What was found, a sentence for each kind of verdict there is."""
    if not findings.findings:
        return "Nothing is known yet: no schedule has been put forward for confirmation."
    sentences = []
    for rule in dict.fromkeys(finding.case.rule for finding in findings.findings):
        own = [finding for finding in findings.findings if finding.case.rule == rule]
        lost, kept, left = (
            [finding for finding in own if finding.verdict.outcome == outcome]
            for outcome in ("not near-optimal", "near-optimal", "undecided")
        )
        if lost:
            losses = "; ".join(_lost(findings, each) for each in lost)
            sentences.append(f"{capital(str(rule))} costs accuracy: {losses}.")
        if kept:
            margin = points(findings.plan.config.confirm.margin)
            subject = "it" if lost else str(rule)
            sentences.append(
                f"{capital(_within(kept))} {subject} is good enough: nothing it was tested against is better by more "
                f"than {margin}."
            )
        if left:
            sentences.append(f"{capital(_within(left))} the trainings made so far do not tell.")
    return " ".join(sentences)


def _within(findings: Sequence[Finding]) -> str:
    return f"within {listed([short_budget(each.case.budget) for each in findings])}"


def _lost(findings: Findings, finding: Finding) -> str:
    best, rule, config = finding.best.accuracy, finding.rule.accuracy, findings.plan.config
    gain = best.mean - rule.mean if best and rule else finding.verdict.regret.mean
    about = "" if finding.verdict.exact else "about "
    if config.table is not None:
        said = f"is {about}{points(gain)} more accurate than"
    elif config.training.score == "accuracy":
        said = f"gets {about}{number(gain)} more of every 100 test images right than"
    else:
        said = f"has a {score_text(config.training.score)} {about}{points(gain)} above that of"
    return f"{_within([finding])}, {finding.best.schedule} {said} {finding.case.schedule}"


def use_sentence(finding: Finding, confirm: ConfirmConfig) -> str:
    """Which schedule to take under one budget, and what it is worth."""
    best, rule, case = finding.best, finding.rule, finding.case
    within = capital(_within([finding]))
    if not finding.verdict.runs:
        return f"{within}: nothing yet."
    reached = f" ({percent(best.accuracy.mean)})" if best.accuracy else ""
    own = f" ({percent(rule.accuracy.mean)})" if rule.accuracy else ""
    outcome: Outcome = finding.verdict.outcome
    match outcome:
        case "not near-optimal":
            return f"{within}: {best.schedule}{reached}, not {case.rule}'s {case.schedule}{own}."
        case "near-optimal" if best is rule:
            return f"{within}: {case.rule}'s {case.schedule}{own}; nothing tested is better."
        case "near-optimal":
            return (
                f"{within}: {case.rule}'s {case.schedule}{own} or {best.schedule}{reached}, which differ by less than "
                f"the margin of {points(confirm.margin)}."
            )
        case "undecided" if best is rule:
            return f"{within}: {case.rule}'s {case.schedule}{own} for now; nothing tested is ahead of it."
        case "undecided":
            return f"{within}: {best.schedule}{reached} for now, which is ahead of {case.rule}'s {case.schedule}{own}."


def how_sure(findings: Findings) -> str:
    """What the answer rests on, how often such an answer is wrong, and what it does not speak of."""
    compared = [finding for finding in findings.findings if finding.verdict.runs]
    if not compared:
        return "How sure this is cannot be said before the first comparison."
    if all(finding.verdict.exact for finding in compared):
        return "All accuracies were known beforehand, so the answer is certain for the table it was looked up in."
    config, runs = findings.plan.config, sorted({finding.rule.runs for finding in compared})
    noun = "training" if config.table is None else "draw"
    number_of = f"{runs[0]} to {counted(runs[-1], noun)}" if runs[0] < runs[-1] else counted(runs[0], noun)
    seen = ", scored on test images that the search had not seen" if config.table is None else " from the table"
    said = [f"Each comparison rests on {number_of} of either schedule{seen}."]
    if any(finding.verdict.outcome != "undecided" for finding in compared):
        wrong = share(1 - config.confirm.confidence)
        said.append(f"What was decided is wrong about the schedules compared with a probability of at most {wrong}.")
    if any(finding.verdict.outcome == "undecided" for finding in compared):
        said.append("Where the trainings do not tell, what leads so far may not lead in the end.")
    return " ".join([*said, *_untested(findings, compared)])


def _untested(findings: Findings, compared: Sequence[Finding]) -> Iterator[str]:
    """How likely something nobody tested is better, where a rule is called good enough."""
    margin = points(findings.plan.config.confirm.margin)
    for rule in dict.fromkeys(finding.case.rule for finding in compared):
        chances = [
            f"{chance(finding.unexplored_probability)} {_within([finding])}"
            for finding in compared
            if finding.case.rule == rule
            and finding.verdict.outcome == "near-optimal"
            and finding.unexplored_probability is not None
        ]
        if chances:
            yield (
                f"That some schedule nobody tested beats {rule} by more than {margin} has a probability of "
                f"{listed(chances)}, by the model of the search."
            )
