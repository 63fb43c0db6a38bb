"""What further runs would likely bring: the chance of a decision, and the number of runs that makes it likely.

Owns the forecast made at a look. It plans and never decides: a wrong forecast costs runs or patience, no verdict.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from search.looks import Bools, Floats, Plan, variance_floor

LIKELY = 0.8
"""The chance that `runs_to_decide` promises, the usual power of a planned trial."""

_FARTHEST_ESTIMATE = 100  # times the last look; beyond it an estimate from the present means is fiction
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)  # of a normal variable, once the weights sum to one


@dataclass(frozen=True)
class Moments:
    """What the scores of a look say of each arm, for a batch of confirmations.

    Attributes:
        runs: Runs per schedule at the look, n; shape `(...)`.
        rule: Mean of the rule's first n scores; shape `(..., 1)`.
        rule_variance: Over runs, floored; the most of the pairs with an unsettled challenger; shape `(..., 1)`.
        challengers: Means of the challengers' first n scores; shape `(..., K)`.
        variances: Over runs, floored; NaN where all scores of a pair agree; shape `(..., K)`.
        unsettled: Whose numbers count; shape `(..., K)`.
    """

    runs: NDArray[np.int64]
    rule: Floats
    rule_variance: Floats
    challengers: Floats
    variances: Floats
    unsettled: Bools


def moments(rule: Floats, challengers: Floats, unsettled: Bools, runs: NDArray[np.int64]) -> Moments:
    """The moments of everyone's first `runs` scores.

    Args:
        rule: Accuracies; shape `(..., n)`.
        challengers: Accuracies; shape `(..., K, n)`.
        unsettled: Shape `(..., K)`; unsettled challengers have at least `runs` scores.
        runs: The last complete look of each confirmation, at least 2; shape `(...)`.
    """
    later = np.arange(rule.shape[-1]) >= runs[..., None]
    ours = np.where(later, np.nan, rule)[..., None, :]
    theirs = np.where(later[..., None, :] | ~unsettled[..., None], np.nan, challengers)
    # A settled challenger counts as a copy of the rule, so that no number is missing; its own are never read.
    theirs = np.where(unsettled[..., None], theirs, ours)
    floor = variance_floor(np.broadcast_to(ours, theirs.shape), theirs)
    rule_variance = np.maximum(np.nanvar(ours, -1, ddof=1), floor)
    most = np.max(np.where(unsettled, rule_variance, 0.0), -1, keepdims=True)
    return Moments(
        runs, np.nanmean(ours, -1), most, np.nanmean(theirs, -1), np.maximum(np.nanvar(theirs, -1, ddof=1), floor),
        unsettled,
    )  # fmt: skip


def chance_to_decide(found: Moments, margin: float, low_tail: float, high_tail: float, runs: Floats) -> Floats:
    """The chance that a look at `runs` runs, more than were made, decides; `(...)`; NaN where no spread is known.

    The predictive probability of a trial under way (Spiegelhalter, Freedman & Blackburn 1986,
    doi:10.1016/0197-2456(86)90003-6) with flat priors on the means: given m runs, the mean of n is normal around the
    present mean with variance var * (1 / m - 1 / n). Given the rule's mean the challengers are independent, so the
    probabilities that all are settled, and that none is better by more than the margin, are products, averaged over
    the rule's mean by Gauss-Hermite quadrature.

    Assumes normal scores, and takes the present variances for the truth. It misleads at few runs, where variances are
    themselves uncertain, when rare collapsed runs are still to come, and where one knows beforehand that differences
    near the margin are common: then the flat prior promises too much.

    Args:
        found: The moments at the last look.
        margin: A fraction.
        low_tail: Tail probability of the lower limits at that look, adjusted over challengers.
        high_tail: Tail probability of the upper limits.
        runs: Runs per schedule at that look; shape `(...)`.
    """
    later = runs[..., None]
    rule_variance, variance = found.rule_variance, found.variances
    freedom = (later - 1) * (rule_variance + variance) ** 2 / (rule_variance**2 + variance**2)
    error = np.sqrt((rule_variance + variance) / later)
    remaining = 1 / found.runs[..., None] - 1 / later
    # One more axis, last: the rule's mean at that look.
    difference = (found.challengers - found.rule)[..., None] - np.sqrt(rule_variance * remaining)[..., None] * _NODES
    spread = np.sqrt(variance * remaining)[..., None]
    to_settle = (margin + stdtrit(freedom, high_tail) * error)[..., None]
    to_exceed = (margin - stdtrit(freedom, low_tail) * error)[..., None]
    unsettled = found.unsettled[..., None]
    settles = np.where(unsettled, ndtr((to_settle - difference) / spread), 1.0)
    exceeds = np.where(unsettled, ndtr((difference - to_exceed) / spread), 0.0)
    decides = 1 - np.prod(1 - exceeds, -2) + np.prod(settles, -2)
    return np.asarray(decides @ _WEIGHTS / _WEIGHTS.sum())


def runs_to_decide(found: Moments, margin: float, plan: Plan) -> Floats:
    """Runs per schedule at which a decision is likely (`LIKELY`); shape `(...)`; NaN where none can be named.

    The first planned look still ahead that decides with this chance at its own tails; else the fewest runs beyond the
    last look that do at the tails of the last one; NaN beyond a hundred times the last look. Assumptions and failings
    are those of `chance_to_decide`; besides, the chance to be decided at a look in between is left out, so that
    somewhat fewer runs would do.
    """
    last, tails = plan.looks[-1], plan.tails()
    low, high = np.full(found.runs.shape, float(last)), np.full(found.runs.shape, float(last * _FARTHEST_ESTIMATE))
    tail = tails[-1]
    reachable = chance_to_decide(found, margin, tail / plan.challengers, tail, high) >= LIKELY
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        enough = chance_to_decide(found, margin, tail / plan.challengers, tail, np.maximum(middle, last + 1)) >= LIKELY
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    estimate = np.where(reachable, high, np.nan)
    for look, tail in reversed(list(zip(plan.looks, tails, strict=True))):
        ahead = found.runs < look
        runs = np.where(ahead, look, 2.0 * last)
        likely = chance_to_decide(found, margin, tail / plan.challengers, tail, runs) >= LIKELY
        estimate = np.where(ahead & likely, look, estimate)
    return np.asarray(estimate)


def chance_per_run(found: Moments, margin: float, plan: Plan) -> Floats:
    """The chance to be decided by a planned look ahead per run it costs, at the look where it is largest; `(...)`.

    Runs of the rule and of all unsettled challengers are counted. 0 after the last look, and where no spread is known.
    It ranks cases that compete for runs; as a chance it has the failings of `chance_to_decide`.
    """
    best = np.zeros(found.runs.shape)
    arms = 1 + found.unsettled.sum(-1)
    for look, tail in zip(plan.looks, plan.tails(), strict=True):
        ahead = found.runs < look
        runs = np.where(ahead, look, found.runs + 1.0)
        chance = chance_to_decide(found, margin, tail / plan.challengers, tail, runs) / ((runs - found.runs) * arms)
        best = np.fmax(best, np.where(ahead, chance, 0.0))
    return best
