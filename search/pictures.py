"""The pictures of a study: which there are, what each shows and how it is read.

Owns names, titles, alternative texts and readings; how a picture is drawn for paper is in `figures` and its
neighbours, how for a screen in `plots`. The report, the dashboard and notebooks show the same ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from plotly import graph_objects as go

from search import figures, intervalplots, plots, probefigures, ratiofigures, stagefigures, wording
from search.cost import CostName
from search.figures import COST_LABELS, TrialPoint
from search.findings import Findings
from search.growth import BestRatio
from search.probewording import sensitivity_sentences


@dataclass(frozen=True)
class Picture:
    """A picture of a study.

    Attributes:
        name: Of its files.
        title: What it shows, in a few words.
        alt: What it says, for who cannot see it.
        reading: How to read it, in one line.
        draw: Draws it for paper.
        plot: Draws it to hover over.
    """

    name: str
    title: str
    alt: str
    reading: str
    draw: Callable[[], Figure]
    plot: Callable[[], go.Figure]


def pictures(findings: Findings, trials: Sequence[TrialPoint]) -> Iterator[Picture]:
    """Every picture there is something to show in.

    Args:
        findings: What the study says, so far or in the end.
        trials: Its complete trials.
    """
    if any(finding.verdict.runs for finding in findings.findings):
        yield _confirmation(findings)
    if bars := stagefigures.stage_bars(findings, trials):
        yield _stages(bars)
    if findings.rule_of_thumb:
        yield _ratios(findings)
    if any(map(ratiofigures.shows_falloff, findings.rule_of_thumb)):
        yield _falloff(findings)
    if findings.sensitivities:
        yield _learning_rates(findings)
    for cost in findings.plan.objective.reference.known if trials else ():
        yield _accuracy(findings, trials, cost)


def _confirmation(findings: Findings) -> Picture:
    score, margin = _score(findings), _margin(findings)
    rules = [finding.case.rule for finding in findings.findings]
    return Picture(
        "confirmation",
        wording.question(findings.plan.source.name, rules),
        f"Interval plot of every confirmed challenger's test {score} minus the rule's, by budget. "
        + wording.answer(findings.findings),
        "Each line is one schedule's gain over the rule. Wholly right of the grey band, it beats the rule by more "
        f"than {margin}; ending left of the band's right edge, it does not.",
        lambda: figures.confirmation(findings),
        lambda: intervalplots.confirmation(findings),
    )


def _stages(bars: Sequence[stagefigures.StageBars]) -> Picture:
    said = [
        f"Within {wording.short_budget(each.budget)}: {each.rule_name} {each.rule}, best {each.best}." for each in bars
    ]
    return Picture(
        "stages",
        "Filters of every stage",
        "Bar charts of the filters of every stage, one for each budget. " + " ".join(said),
        "Where a blue bar is higher than the grey one beside it, the best schedule spends more on that stage than "
        f"{bars[0].rule_name} does.",
        lambda: stagefigures.stages(bars),
        lambda: plots.stages(bars),
    )


def _ratios(findings: Findings) -> Picture:
    return Picture(
        "ratios",
        "Growth ratio that serves best",
        "Interval plot of the growth ratio that serves best under each budget, with doubling marked at 2. "
        + " ".join(map(wording.ratio_sentence, findings.rule_of_thumb)),
        "Doubling is the dashed line at 2; under a budget whose line misses it, another ratio serves better.",
        lambda: ratiofigures.ratios(findings),
        lambda: plots.ratios(findings),
    )


def _falloff(findings: Findings) -> Picture:
    score = _score(findings)
    return Picture(
        "falloff",
        "What another growth ratio costs, or gains",
        f"Line plots of {score} minus doubling's against the growth ratio, one for each budget. "
        + " ".join(_rule_of_thumb(findings, each) for each in findings.rule_of_thumb),
        "Above the line at 0 a ratio serves better than doubling, below it worse; above the grey band it is "
        f"better by more than {_margin(findings)}. Lines have kinks since filters come in steps, which leave more or "
        "less of a budget unused.",
        lambda: ratiofigures.falloff(findings),
        lambda: plots.falloff(findings),
    )


def _rule_of_thumb(findings: Findings, best: BestRatio) -> str:
    falloff = wording.falloff_sentence(best, findings.plan.config.confirm.margin)
    return " ".join(filter(None, (wording.ratio_sentence(best), falloff)))


def _learning_rates(findings: Findings) -> Picture:
    return Picture(
        "learning-rates",
        "The same comparison at other learning rates",
        f"Interval plot of the leading challenger's test {_score(findings)} minus the rule's at three learning rates. "
        + " ".join(sensitivity_sentences(findings, findings.sensitivities)),
        "The three lines of a verdict should lie on the same side of the grey band's right edge.",
        lambda: probefigures.learning_rates(findings),
        lambda: intervalplots.learning_rates(findings),
    )


def _accuracy(findings: Findings, trials: Sequence[TrialPoint], cost: CostName) -> Picture:
    score = _score(findings)
    return Picture(
        f"accuracy-{cost}",
        f"Validation {score} against {COST_LABELS[cost]}",
        f"Scatter plot of the validation {score} of {len(trials):,} trials against {COST_LABELS[cost]}, with rules "
        "marked.",
        f"Higher is better, further left is cheaper; the black line is the best {score} seen at each cost, which "
        "noise flatters.",
        lambda: figures.accuracy_against_cost(findings, trials, cost),
        lambda: plots.accuracy_against_cost(findings, trials, cost),
    )


def _score(findings: Findings) -> str:
    return wording.score_text(findings.plan.config.training.score)


def _margin(findings: Findings) -> str:
    return wording.points(findings.plan.config.confirm.margin)
