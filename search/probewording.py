"""What the probes found, in plain sentences: other learning rates, and brief training as a judge.

Owns words only: every number comes from `soundness`. The terminal and the report share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.wording import chance, listed, percent, points, short_budget

_LIKELIER_THAN_NOT = 0.5
_HARDLY = 0.02

if TYPE_CHECKING:  # its values are described, not made; loading what makes them takes seconds
    from search.config import ConfirmConfig
    from search.findings import Finding, Findings
    from search.soundness import AtLearningRate, FidelityCheck, Sensitivity, Steadiness
    from search.verdict import Outcome

_FEW_RANKS = 0.3
"""A rank correlation too small to go by: runs of one training that agree by less have hardly an order in common, and
brief training that may fall short by more has too few schedules to speak of. It chooses words and decides nothing."""


def factor_text(factor: float) -> str:
    """A multiple of the learning rate: `half the learning rate`."""
    return {0.5: "half the learning rate", 1.0: "as it was set", 2.0: "double the learning rate"}.get(
        factor, f"{factor:g} times the learning rate"
    )


def steadiness_text(steadiness: Steadiness | None) -> str:
    """How a verdict stands at other learning rates, in two words with a sign."""
    match steadiness:
        case "holds":
            return "✓ verdict holds"
        case "turns":
            return "✗ verdict turns"
        case "open":
            return "? left open"
        case None:
            return "? undecided anyway"


def sensitivity_sentence(found: Sensitivity, outcome: Outcome, confirm: ConfirmConfig) -> str:
    """One case at other learning rates: what became of its verdict, and what that means."""
    where = f"Within {short_budget(found.case.budget)}"
    margin, rule, rival = points(confirm.margin), found.case.rule, found.rival
    match found.steadiness:
        case "holds":
            return (
                f"{where} the verdict holds: {rule} is {outcome} against {rival} at half and at double the learning "
                "rate too, so it is no artefact of the one that was set."
            )
        case "turns":
            turned = [each for each in found.at if each.factor != 1 and _turned(each, outcome, confirm.margin)]
            rates = listed([factor_text(each.factor) for each in turned])
            than = "beats it by more than" if outcome == "near-optimal" else "is not better by more than"
            return (
                f"{where} the verdict turns: {rule} is {outcome}, yet at {rates} {rival} {than} the margin of "
                f"{margin}. It is as much about the learning rate as about the filters."
            )
        case "open":
            return (
                f"{where} it stays open whether the verdict, {outcome}, would hold at other learning rates: an "
                f"interval lies on both sides of the margin of {margin}. More runs could tell "
                "(soundness.learning_rate_runs)."
            )
        case None:
            return f"{where} there is no verdict to turn: it is undecided at the learning rate set."


def sensitivity_sentences(findings: Findings, which: Sequence[Sensitivity]) -> list[str]:
    """One sentence for each of these cases, and one for all that are undecided."""
    outcomes = {each.case: each.verdict.outcome for each in findings.findings}
    confirm = findings.plan.config.confirm
    said = [sensitivity_sentence(each, outcomes[each.case], confirm) for each in which if each.steadiness]
    idle = list(dict.fromkeys(short_budget(each.case.budget) for each in which if each.steadiness is None))
    if idle:
        said.append(f"Within {listed(idle)} there is no verdict to turn: it is undecided at the learning rate set.")
    return said


def _turned(at: AtLearningRate, outcome: Outcome, margin: float) -> bool:
    return at.difference.low > margin if outcome == "near-optimal" else at.difference.high <= margin


def fidelity_reading(check: FidelityCheck) -> str:
    """What one budget's rank correlations say of brief training, in a few words."""
    if check.misleads:
        return "misleads: it ranks these schedules otherwise than full training"
    if min(check.between_brief, check.between_full) < _FEW_RANKS:
        return "hard to tell: seeds alone upset the ranks"
    if check.shortfall.low < -_FEW_RANKS:
        return "open: too few schedules to tell"
    return "no sign that it misleads"


def fidelity_warning(check: FidelityCheck) -> str | None:
    """What is said aloud where brief training misleads; None where it is not shown to."""
    if not check.misleads:
        return None
    return (
        f"Within {short_budget(check.budget)}, {check.brief_epochs} epochs of training are no fair judge of "
        f"{check.full_epochs}: the ranks of {check.schedules} schedules after brief and after full training correlate "
        f"by {check.between_fidelities:.2f}, less than seeds explain (by {-check.shortfall.high:.2f} to "
        f"{-check.shortfall.low:.2f}). The verdict is about brief training; set training.epochs higher to judge "
        "full training."
    )


def terminal_lines(findings: Findings) -> list[str]:
    """What speaks against trusting a verdict, a line each; mostly none.

    Cases in which something unexplored is likelier than not to be better, cases that turn at another learning rate,
    budgets under which brief training misleads.
    """
    turned = [each for each in findings.sensitivities if each.steadiness == "turns"]
    misled = [said for check in findings.fidelity_checks if (said := fidelity_warning(check))]
    return warnings(findings) + sensitivity_sentences(findings, turned) + misled


def warnings(findings: Findings) -> list[str]:
    """What a reader must know before any verdict; mostly nothing."""
    unlearned = [said for finding in findings.findings if (said := unlearned_warning(finding, findings.blind_score))]
    return unlearned + [said for finding in findings.findings if (said := unexplored_warning(finding))]


def unlearned_warning(finding: Finding, blind: float | None) -> str | None:
    """That networks hardly learned anything, so that comparing them says nothing; None where they did.

    Args:
        finding: The case.
        blind: Score of always naming the commonest class, a fraction; None where that is not known.
    """
    reached = [each.accuracy.mean for each in (finding.rule, finding.best) if each.accuracy is not None]
    if blind is None or not reached or max(reached) > blind + _HARDLY:
        return None
    return (
        f"{short_budget(finding.case.budget)}: hardly anything was learned, since always naming the commonest class "
        f"scores {percent(blind)} and the best confirmed {percent(max(reached))}; raise training.epochs or share, or "
        "mend training.learning_rate, before reading a verdict into it."
    )


def unexplored_warning(finding: Finding) -> str | None:
    """That a verdict is of the schedules confirmed, where the surrogate expects better ones; None elsewhere."""
    likely = finding.unexplored_probability or 0.0
    if finding.verdict.outcome != "near-optimal" or likely <= _LIKELIER_THAN_NOT:
        return None
    return (
        f"{short_budget(finding.case.budget)}: near-optimal against what was confirmed, but with a probability of "
        f"{chance(likely)} the search's model expects something better by more than the margin; more trials may find "
        "it."
    )
