"""What a study found, in plain sentences; the terminal, the report, the figures and the model cards share them.

Owns words and number formats. Decides nothing: every number comes from `findings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from search.config import ConfirmConfig, SamplerName
from search.cost import Budget, CostName, amount, exact_amount
from search.outlook import LIKELY
from search.rules import Rule
from search.trainingconfig import ScoreName
from search.verdict import Interval, Outcome

if TYPE_CHECKING:  # its values are described, not made; loading what makes them takes seconds
    from search.alignment import Alignment
    from search.findings import Confirmed, Finding, WeightedBest
    from search.growth import BestRatio

OUTCOMES: tuple[Outcome, ...] = ("not near-optimal", "near-optimal", "undecided")

FORECASTS_KEPT = (0.6, 0.83)
"""Least and greatest share of simulated forecasts that came true (studies/calibration/prices.csv)."""


def budget_text(budget: Budget) -> str:
    """A budget as its limit, exact: `40,000 multiply-adds (MACs) per image`."""
    nouns: dict[CostName, str] = {
        "params": "parameters",
        "macs": "multiply-adds (MACs) per image",
        "activations": "activations",
        "memory": "of training memory",
    }
    return f"{exact_amount(budget.cost, budget.limit)} {nouns[budget.cost]}"


def short_budget(budget: Budget) -> str:
    """A budget in two words: `40,000 MACs`."""
    nouns: dict[CostName, str] = {
        "params": "parameters",
        "macs": "MACs",
        "activations": "activations",
        "memory": "memory",
    }
    return f"{amount(budget.cost, budget.limit)} {nouns[budget.cost]}"


def number(fraction: float) -> str:
    """A difference of accuracies in points, bare: `0.5`, `1.25` with a minus sign before it."""
    return _trimmed(100 * fraction)


def points(fraction: float) -> str:
    """A difference of accuracies in points: `0.5 points`, `1 point`."""
    text = number(fraction)
    return f"{text} point" if text.strip("\N{MINUS SIGN}") == "1" else f"{text} points"


def percent(fraction: float) -> str:
    """An accuracy: `96.10 %`."""
    return f"{100 * fraction:.2f} %"


def share(fraction: float) -> str:
    """A share or a confidence: `95 %`, `97.3 %`."""
    return f"{100 * fraction:.3g} %"


def chance(probability: float) -> str:
    """A probability estimated from draws, which never shows that something is certain."""
    if probability < 0.01:
        return "below 1 %"
    return "above 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def accuracy_text(confirmed: Confirmed) -> str:
    """Mean accuracy with interval and runs: `96.10 % (95.92 to 96.28, 64 runs)`."""
    if confirmed.accuracy is None:
        return f"not known yet ({counted(confirmed.runs, 'run')})"
    interval = confirmed.accuracy
    if confirmed.runs == 1:  # one run has no interval, so this accuracy is known
        return f"{percent(interval.mean)} (known)"
    return f"{percent(interval.mean)} ({100 * interval.low:.2f} to {100 * interval.high:.2f}, {confirmed.runs} runs)"


def range_text(interval: Interval) -> str:
    """An interval of differences in points: `0.57 to 1.15 points`."""
    return f"{number(interval.low)} to {points(interval.high)}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 run`, `16 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """An enumeration: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def answer(findings: Sequence[Finding]) -> str:
    """All verdicts in one sentence per rule; what is said before anything else."""
    if not findings:
        return "Nothing is decided yet: no schedule has been put forward for confirmation."
    sentences = []
    for rule in dict.fromkeys(finding.case.rule for finding in findings):
        parts = []
        for outcome in OUTCOMES:
            budgets = [
                short_budget(each.case.budget)
                for each in findings
                if each.case.rule == rule and each.verdict.outcome == outcome
            ]
            if budgets:
                parts.append(f"{outcome} within {listed(budgets)}")
        sentences.append(f"{capital(str(rule))} is {'; '.join(parts)}.")
    return " ".join(sentences)


def score_text(score: ScoreName) -> str:
    """What a study's accuracies are: `accuracy`, `balanced accuracy`."""
    return score.replace("_", " ")


def headline(finding: Finding, confirm: ConfirmConfig, score: ScoreName = "accuracy") -> str:
    """The verdict in two sentences: what was decided, and how sure that is."""
    if finding.verdict.exact:
        return _exact(finding, confirm)
    match finding.verdict.outcome:
        case "not near-optimal":
            return _not_near_optimal(finding, confirm, score)
        case "near-optimal":
            return _near_optimal(finding, confirm)
        case "undecided":
            return _undecided(finding, confirm)


def _exact(finding: Finding, confirm: ConfirmConfig) -> str:
    rule, verdict, case = finding.case.rule, finding.verdict, finding.case
    opening = f"Within {budget_text(case.budget)}, {rule} is {verdict.outcome}"
    if verdict.best is None:
        return f"{opening}: no schedule of the table is more accurate than its {case.schedule}."
    side = "more" if verdict.outcome == "not near-optimal" else "no more"
    return (
        f"{opening}: of all schedules of the table {verdict.best} is most accurate, by {points(verdict.regret.mean)} "
        f"over {rule}'s {case.schedule}. That is {side} than the {points(confirm.margin)} one is willing to call "
        "nothing, and it is known, not estimated."
    )


def _not_near_optimal(finding: Finding, confirm: ConfirmConfig, score: ScoreName) -> str:
    rule, verdict = finding.case.rule, finding.verdict
    comparison = verdict.comparisons[str(verdict.best)]
    lead = points(comparison.mean)
    match score:
        case "accuracy":
            better = f"classifies {lead} more of the test images correctly than"
        case "balanced_accuracy":
            better = f"has a balanced accuracy on the test images {lead} above that of"
    return (
        f"Within {budget_text(finding.case.budget)}, {rule} is not near-optimal: {verdict.best} {better} {rule}'s "
        f"{finding.case.schedule} (means of {counted(comparison.runs, 'run')} each). With {share(confirm.confidence)} "
        f"confidence {rule} loses between {number(verdict.regret.low)} and {points(verdict.regret.high)} to the best "
        f"schedule confirmed, more than the {points(confirm.margin)} one is willing to call nothing."
    )


def _near_optimal(finding: Finding, confirm: ConfirmConfig) -> str:
    rule, verdict, count = finding.case.rule, finding.verdict, len(finding.challengers)
    if count == 1:
        nobody, best = f"the one schedule confirmed against its {finding.case.schedule} is not", "it"
    else:
        nobody, best = f"none of the {count} schedules confirmed against its {finding.case.schedule} is", "any of them"
    loss = f"at most {points(verdict.regret.high)}" if verdict.regret.high > 0 else "nothing"
    fewest = min(comparison.runs for comparison in verdict.comparisons.values())
    runs = f"{fewest} to {verdict.runs} runs" if fewest < verdict.runs else counted(verdict.runs, "run")
    return (
        f"Within {budget_text(finding.case.budget)}, {rule} is near-optimal: {nobody} better by more than the margin "
        f"of {points(confirm.margin)}. With {share(confirm.confidence)} confidence {rule} loses {loss} to {best} "
        f"({runs} each)."
    )


def _undecided(finding: Finding, confirm: ConfirmConfig) -> str:
    rule, verdict, case = finding.case.rule, finding.verdict, finding.case
    opening = f"Within {budget_text(case.budget)}, it is undecided whether {rule} is near-optimal"
    if not verdict.runs:
        return (
            f"{opening}: its {case.schedule} and {counted(len(case.challengers), 'challenger')} have not been "
            f"compared yet. The first look comes after {counted(confirm.looks[0], 'run')} each."
        )
    if verdict.best is None:
        state = f"no schedule confirmed leads {rule}'s {case.schedule}"
    else:
        state = f"{verdict.best} leads {rule}'s {case.schedule} by {points(verdict.comparisons[verdict.best].mean)}"
    return (
        f"{opening}: on the mean of {counted(verdict.runs, 'run')} each, {state}. With {share(confirm.confidence)} "
        f"confidence {rule} loses between {number(verdict.regret.low)} and {points(verdict.regret.high)}, and the "
        f"margin of {points(confirm.margin)} lies between."
    )


def price_of_decision(finding: Finding) -> str | None:
    """What it would likely take to decide; None for what is decided."""
    verdict = finding.verdict
    if verdict.outcome != "undecided":
        return None
    if not verdict.runs:
        return "What a decision costs cannot be said before the first look."
    if verdict.runs_to_decide is None:
        known = [verdict.comparisons[name] for name in verdict.unsettled]
        if all((each.low, each.high) == (-1, 1) for each in known):
            return "What a decision costs cannot be said: all runs agree, so nothing is known of their spread."
        return "No affordable number of runs would likely decide it: the difference is too close to the margin."
    count = len(verdict.unsettled)
    others = f"the {count} schedules still open" if count > 1 else verdict.unsettled[0]
    each = "each of " if count > 1 else ""
    more = (verdict.runs_to_decide - verdict.runs) * (1 + count)
    return (
        f"About {more:,} more runs would likely decide it: {verdict.runs_to_decide:,} in place of {verdict.runs:,} "
        f"for {finding.case.schedule} and for {each}{others}."
    )


def forecast_note(findings: Sequence[Finding]) -> str | None:
    """How far to trust the prices of a decision; None where none was named."""
    if all(finding.verdict.runs_to_decide is None for finding in findings):
        return None
    least, most = (share(kept) for kept in FORECASTS_KEPT)
    return (
        f"How many runs a decision needs is a forecast: it aims at a chance of {share(LIKELY)}; of simulated ones "
        f"{least} to {most} came true, the fewest early and where runs vary most."
    )


def collapse_sentence(finding: Finding) -> str | None:
    """Which runs collapsed, and what that means for the verdict; None where none did."""
    failed = [
        f"{each.collapsed} of {each.runs:,} runs of {each.schedule}"
        for each in (finding.rule, *finding.challengers)
        if each.collapsed
    ]
    if not failed:
        return None
    return (
        f"Collapsed (diverged, or more than 10 points below their schedule's median): {listed(failed)}. They count in "
        "every mean, but so few say little of how often training fails, and what no run has shown no interval holds."
    )


def over_images(finding: Finding) -> Interval | None:
    """The regret's interval over test images, built as the published one is over seeds; None before any run.

    From the largest lower limit, each of which holds for all challengers together, to the largest upper one.
    """
    images = [each.images for each in finding.challengers if each.images is not None]
    if not images:
        return None
    return Interval(*(max(0.0, *(getattr(each, part) for each in images)) for part in ("mean", "low", "high")))


def image_sentence(finding: Finding, confirm: ConfirmConfig, score: ScoreName = "accuracy") -> str | None:
    """What the choice of test images leaves open, beside what training seeds do; None before any run."""
    interval = over_images(finding)
    if interval is None:
        return None
    count = len(finding.challengers)
    together = f" for all {count} challengers together" if count > 1 else ""
    within = " within their classes" if score == "balanced_accuracy" else ""
    sentence = (
        f"With the test images redrawn{within} (bootstrap, {share(confirm.confidence)}{together}), the loss is "
        f"{range_text(interval)}"
    )
    undecided = finding.verdict.outcome == "undecided"
    if not interval.low <= confirm.margin < interval.high:
        side = "above" if interval.low > confirm.margin else "within"
        seeds = ": what leaves it undecided is the spread between training seeds" if undecided else ""
        return f"{sentence}, wholly {side} the margin{seeds}."
    if undecided:
        return f"{sentence}, on both sides of the margin: more runs can settle it for these test images only."
    return f"{sentence}, on both sides of the margin: another test split might decide otherwise."


def unexplored_sentence(finding: Finding, confirm: ConfirmConfig) -> str:
    """How likely something better was never confirmed."""
    if finding.verdict.exact:
        return "Every schedule of the table within the budget was compared."
    if finding.unexplored_probability is None:
        return "Too few trials for a model of the schedules that were not confirmed."
    return (
        f"That some schedule not confirmed beats {finding.case.rule} by more than {points(confirm.margin)} has a "
        f"probability of {chance(finding.unexplored_probability)} by the surrogate model of the search's scores."
    )


def ratio(value: float) -> str:
    """A growth ratio: `1.19`, `2`."""
    return _trimmed(value)


def ratio_range(low: float, high: float) -> str:
    """Growth ratios from one to another: `1.09 to 3.67`, or the only one."""
    return " to ".join(dict.fromkeys((ratio(low), ratio(high))))


def ratio_sentence(best: BestRatio) -> str:
    """The rule of thumb under one budget."""
    interval = best.interval
    limits = ratio_range(interval.low, interval.high)
    inside = "inside" if interval.low <= 2 <= interval.high else "outside"
    if best.exact:
        alike = f", as does any from {limits}" if interval.low < interval.high else ""
        return (
            f"Within {budget_text(best.budget)}, filters growing by a factor of {ratio(interval.ratio)} from stage "
            f"to stage serve best{alike}."
        )
    return (
        f"Within {budget_text(best.budget)}, filters growing by a factor of {ratio(interval.ratio)} from stage "
        f"to stage serve best (95 % interval {limits}); doubling, 2, lies {inside}."
    )


def falloff_sentence(best: BestRatio, margin: float) -> str | None:
    """How far from the best ratio one may go; None where that is not known."""
    within = best.within(margin)
    if within is None:
        return None
    loses = "loses" if best.exact else "is predicted to lose"
    if within[0] == within[1]:
        return f"Every other ratio tried {loses} more than {points(margin)}."
    return f"Any ratio from {ratio_range(*within)} {loses} no more than {points(margin)} to it."


def alignment_sentence(found: Alignment) -> str:
    """What filters in a larger multiple would change under one budget."""
    within = f"Within {budget_text(found.budget)}"
    if found.aligned is None or found.change is None or found.used is None:
        return f"{within}, no schedule has all its filters in multiples of {found.multiple}."
    if found.aligned == found.free:
        return f"{within}, the model's best, {found.free}, has its filters in multiples of {found.multiple} already."
    gains = found.change.mean > 0
    limits = sorted((found.change.low, found.change.high) if gains else (-found.change.high, -found.change.low))
    return (
        f"{within}, the best in multiples of {found.multiple} is {found.aligned}, which uses {share(found.used)} of "
        f"it: predicted to {'gain' if gains else 'lose'} {points(abs(found.change.mean))} (95 % limits "
        f"{number(limits[0])} to {points(limits[1])}) against {found.free}."
    )


def weighted_sentence(
    best: WeightedBest, params_weight: float, memory_weight: float, score: ScoreName = "accuracy"
) -> str:
    """The weighted objective's best schedule, and what the weights mean."""
    costs = f"{amount('params', best.costs['params'])} parameters, {amount('memory', best.costs['memory'])}"
    return (
        f"Paying {points(params_weight)} of {score_text(score)} for halving the parameters and "
        f"{points(memory_weight)} for halving the training memory, {best.schedule} is worth most ({costs}), at an "
        f"estimated validation {score_text(score)} of {percent(best.accuracy)} (sd {points(best.accuracy_sd)}). The "
        "surrogate's estimate, not confirmed."
    )


def question(study: str, rules: Sequence[Rule]) -> str:
    """The question the verdicts answer: `Is doubling near-optimal on digits?`."""
    names = listed([str(rule) for rule in dict.fromkeys(rules)])
    return f"{'Are' if len(set(rules)) > 1 else 'Is'} {names} near-optimal on {study}?"


def origin_text(origin: str) -> str:
    """Where a schedule comes from: a rule's name as it stands, else what proposed it."""
    if origin in get_args(SamplerName):
        return "sampled"
    return {"surrogate": "model's pick", "table": "best of all"}.get(origin, origin)


def _trimmed(value: float) -> str:
    """At most two decimals, no trailing zeros, no minus before zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "\N{MINUS SIGN}")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
