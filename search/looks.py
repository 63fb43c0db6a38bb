"""The planned looks, replayed on arrays: what the first n scores of each arm say at a look of n.

Owns the plan, Welch's limits and the order in which looks, settled challengers and decisions follow one another, for
any number of confirmations at once. `verdict.decide` is the batch of one, `calibration` the batch of thousands: there
is no second implementation. It must not know names of schedules, reports or where scores come from.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SAME_SCORE = 1e-7  # nearer scores are one score: below one image in ten million, above the rounding of float32


@dataclass(frozen=True)
class Plan:
    """When a verdict is looked at and how sure it must be; fixed before the first confirmation run.

    Attributes:
        looks: Runs per schedule at each look, rising, the first at least 2.
        confidence: One minus alpha, in (0, 1); each of the two wrong verdicts has probability at most alpha / 2
            where scores are normal (what `calibration` measured: studies/calibration).
        challengers: K, the most challengers ever compared with the rule under this plan.

    Raises:
        ValueError: Looks that do not rise or start below 2, or a number out of its range.
    """

    looks: tuple[int, ...]
    confidence: float
    challengers: int

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.looks, self.looks[1:], strict=False))
        if not self.looks or self.looks[0] < 2 or not rising:
            msg = f"looks {list(self.looks)} must rise and start at 2 runs or more"
            raise ValueError(msg)
        check_confidence(self.confidence)
        if self.challengers < 1:
            msg = f"a plan for {self.challengers} challengers decides nothing; plan for at least 1"
            raise ValueError(msg)

    def tails(self) -> tuple[float, ...]:
        """Error probability that each look may spend on one side, shape `(n_looks,)`; their sum is alpha / 2.

        Linear spending (Lan & DeMets 1983, doi:10.1093/biomet/70.3.659; the power family of Kim & DeMets 1987,
        doi:10.1093/biomet/74.1.149, with rho = 1): a look spends in proportion to the runs made since the look before.
        Shares are added up by the union bound, so nothing is assumed of how the looks depend on each other, and a
        challenger may be dropped at any look. The price is some power against exact group-sequential bounds. It
        misleads when looks are added after scores were seen: that is another plan, and the errors of both add up.
        """
        runs_since = np.diff((0, *self.looks))
        return tuple(float(share) for share in (1 - self.confidence) / 2 * runs_since / self.looks[-1])


@dataclass(frozen=True)
class Replay:
    """Where the looks have led, for a batch of confirmations of K challengers each.

    Attributes:
        mean: Challenger minus rule at the look the challenger was last compared at; shape `(..., K)`.
        low: Lower limits, simultaneous over looks and challengers; -1 before the first look; shape `(..., K)`.
        high: Upper limits, simultaneous over looks; 1 before the first look; shape `(..., K)`.
        runs: The look each challenger was last compared at, 0 before the first; shape `(..., K)`.
        settled: The upper limit was within the margin: no further runs, the numbers stay; shape `(..., K)`.
        better: The lower limit is beyond the margin; shape `(..., K)`.
        reached: The last complete look, 0 before the first; shape `(...)`.
    """

    mean: Floats
    low: Floats
    high: Floats
    runs: NDArray[np.int64]
    settled: Bools
    better: Bools
    reached: NDArray[np.int64]

    @property
    def near_optimal(self) -> Bools:
        """All challengers are settled; shape `(...)`."""
        return np.asarray(self.settled.all(-1))

    @property
    def not_near_optimal(self) -> Bools:
        """Some challenger is better by more than the margin; shape `(...)`.

        Never together with `near_optimal`: a settled challenger's lower limit is below its upper one.
        """
        return np.asarray(self.better.any(-1))

    @property
    def undecided(self) -> Bools:
        """Neither of the two; shape `(...)`."""
        return np.asarray(~self.near_optimal & ~self.not_near_optimal)


def replay(rule: Floats, challengers: Floats, margin: float, plan: Plan) -> Replay:
    """Each confirmation's standing at its first decisive look, or at the last look its scores complete.

    The method, its assumptions and when it misleads are told at `verdict.decide`. A look of n uses everyone's first n
    scores, and waits for the rule and every challenger not yet settled: an arm that lacks a score holds the look back,
    it is never compared at another number of runs than the rule.

    Args:
        rule: Accuracies of the rule's runs, fractions in seed order, NaN from the first missing run on; `(..., n)`.
        challengers: The same for each challenger; shape `(..., K, n)`.
        margin: The regret one is willing to call nothing, a fraction.
        plan: Looks, confidence and the K that lower limits are adjusted for.
    """
    batch, count = challengers.shape[:-2], challengers.shape[-2]
    shape = (math.prod(batch), count)
    rule, challengers = rule.reshape(shape[0], -1), challengers.reshape(*shape, -1)
    mean, low, high = np.zeros(shape), np.full(shape, -1.0), np.ones(shape)
    runs, reached = np.zeros(shape, np.int64), np.zeros(shape[0], np.int64)
    settled, ended = np.zeros(shape, np.bool_), np.zeros(shape[0], np.bool_)
    made, challengers_made = np.isfinite(rule).sum(-1), np.isfinite(challengers).sum(-1)
    for look, tail in zip(plan.looks, plan.tails(), strict=True):
        ended |= (made < look) | ((challengers_made < look) & ~settled).any(-1)
        if ended.all():
            break
        pairs = row, _ = np.nonzero(~settled & ~ended[:, None])
        mean[pairs], low[pairs], high[pairs] = _limits(
            rule[row, :look], challengers[pairs][:, :look], tail / plan.challengers, tail
        )
        runs[pairs], reached[~ended] = look, look
        settled = high <= margin
        ended |= settled.all(-1) | (low > margin).any(-1)
    wide = (*batch, count)
    return Replay(
        mean=mean.reshape(wide),
        low=low.reshape(wide),
        high=high.reshape(wide),
        runs=runs.reshape(wide),
        settled=settled.reshape(wide),
        better=(low > margin).reshape(wide),
        reached=reached.reshape(batch),
    )


def variance_floor(*arms: Floats) -> Floats:
    """Least variance to believe, from the smallest gap between different scores of these arms together.

    An sd is taken to be at least half that gap: were it larger than half a step of rounding, n normal scores would
    agree with probability below 0.69^n. It misleads where scores are rounded to steps they never show.

    Args:
        arms: Accuracies, each of shape `(..., n_runs)`.

    Returns:
        Shape `(...)`; NaN where all scores agree, since not even the step is known there.
    """
    gaps = np.diff(np.sort(np.concatenate(arms, axis=-1), axis=-1), axis=-1)
    least = np.min(gaps, axis=-1, where=gaps > _SAME_SCORE, initial=np.inf)
    return np.asarray(np.where(np.isfinite(least), (least / 2) ** 2, np.nan))


def variances(rule: Floats, challenger: Floats) -> tuple[Floats, Floats]:
    """Variance over runs of both arms, each `(..., n_runs)`, not below their floor; NaN where all scores agree."""
    floor = variance_floor(rule, challenger)
    return np.maximum(rule.var(-1, ddof=1), floor), np.maximum(challenger.var(-1, ddof=1), floor)


def _limits(rule: Floats, challenger: Floats, low_tail: float, high_tail: float) -> tuple[Floats, Floats, Floats]:
    """Mean difference and Welch's limits of challenger minus rule, both `(n_pairs, n_runs)`; -1 and 1 if unknown."""
    runs, mean = rule.shape[-1], challenger.mean(-1) - rule.mean(-1)
    of_rule, of_challenger = variances(rule, challenger)
    total = of_rule + of_challenger
    freedom = (runs - 1) * total**2 / (of_rule**2 + of_challenger**2)  # Welch & Satterthwaite, at equal runs
    error = np.sqrt(total / runs)
    low = np.fmax(-1.0, mean + stdtrit(freedom, low_tail) * error)
    high = np.fmin(1.0, mean - stdtrit(freedom, high_tail) * error)
    return mean, low, high


def check_confidence(confidence: float) -> None:
    """Refuse what is no confidence.

    Raises:
        ValueError: It is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        msg = f"confidence {confidence} is out of range; it is a fraction between 0 and 1, such as 0.95"
        raise ValueError(msg)
