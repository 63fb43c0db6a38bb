"""The answer for who reads nothing else: what was found, what to use and how sure that is, without the field's words.

Owns those sentences; `wording` has the exact ones.
"""

from collections.abc import Sequence

from search.config import ConfirmConfig
from search.findings import Finding, Findings
from search.verdict import Outcome
from search.wording import capital, counted, listed, number, percent, points, score_text, share, short_budget


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
            sentences.append(
                f"{capital(str(rule))} costs accuracy {listed([_lost(findings, each) for each in lost])}."
            )
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
    mean, score = finding.verdict.regret.mean, findings.plan.config.training.score
    about = "" if finding.verdict.exact else "about "
    gain = f"gets {about}{number(mean)} more of every 100 test images right than"
    if score != "accuracy":
        gain = f"has a {score_text(score)} {about}{points(mean)} above that of"
    return f"{_within([finding])}, where {finding.best.schedule} {gain} {finding.case.schedule}"


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
    """What the answer rests on, and how often such an answer is wrong."""
    verdicts = [finding.verdict for finding in findings.findings]
    runs = sorted({verdict.runs for verdict in verdicts if verdict.runs})
    if not runs:
        return "How sure this is cannot be said before the first comparison."
    if all(verdict.exact for verdict in verdicts):
        return "All accuracies were known beforehand, so the answer is certain for the table it was looked up in."
    each = f"{runs[0]} to {counted(runs[-1], 'training')}" if runs[0] < runs[-1] else counted(runs[0], "training")
    wrong = share(1 - findings.plan.config.confirm.confidence)
    return (
        f"Each answer rests on {each} of every schedule compared, scored on test images that the search had not seen, "
        f"and is wrong with a probability of at most {wrong}."
    )
