"""Is a rule near-optimal? The decision, and the intervals published beside it.

Owns all statistics of confirmation: planned looks, Welch limits, the three verdicts, the regret interval and the
bootstrap over test images. Pure arithmetic on scores: it must not know schedules, training or storage.

Two errors are bounded, each by half of alpha = 1 - confidence, over the whole sequence of looks: `near-optimal` for a
rule whose regret exceeds the margin, and `not near-optimal` for one whose regret does not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Outcome = Literal["near-optimal", "not near-optimal", "undecided"]

IMAGE_DIFFERENCE_SD = 0.05
"""Planning value: sd over test images of the difference in correctness of two schedules, each averaged over seeds.

Measured on digits (539 test images, 64 seeds, five pairs of schedules of like cost): 0.014 to 0.028; doubled here
because schedules disagree on more images of harder data.
"""

_SAME_SCORE = 1e-7  # nearer scores are one score: below one image in ten million, above the rounding of float32
_LIKELY = 0.8  # the chance that `runs_to_decide` promises, the usual power of a planned trial
_FARTHEST_ESTIMATE = 100  # times the last look; beyond it an estimate from the present means is fiction


@dataclass(frozen=True)
class Interval:
    """An estimate between its confidence limits.

    Raises:
        ValueError: The lower limit is above the upper one, or either is not a number.
    """

    mean: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            msg = f"an interval needs low <= high, not low {self.low} and high {self.high}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Plan:
    """When a verdict is looked at and how sure it must be; fixed before the first confirmation run.

    Attributes:
        looks: Runs per schedule at each look, rising, the first at least 2.
        confidence: One minus alpha, in (0, 1); each of the two wrong verdicts has probability at most alpha / 2.
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
        _check_confidence(self.confidence)
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
class Comparison:
    """One challenger's mean accuracy minus the rule's.

    Attributes:
        mean: Difference of means after `runs` runs of each; fraction, positive when the challenger is better.
        low: Lower limit, simultaneous over looks and challengers.
        high: Upper limit, simultaneous over looks.
        runs: The look it was last compared at; 0 before the first, with the limits -1 and 1 that always hold.
        settled: Its upper limit was within the margin: it gets no further runs and keeps these numbers.
    """

    mean: float
    low: float
    high: float
    runs: int
    settled: bool


@dataclass(frozen=True)
class Verdict:
    """What the planned looks say of one rule.

    Attributes:
        outcome: Decided at the first decisive look, else `undecided`.
        runs: The last complete look; 0 before the first.
        regret: Of the rule against the confirmed challengers; limits hold at all looks together. Before the first look
            nothing is known and it reads 0 within [0, 1].
        comparisons: By challenger, sorted by name.
        best: The challenger with the largest mean difference; None when the rule's mean is best, or before a look.
        unsettled: Challengers never settled, sorted; while undecided, these and the rule get further runs.
        next_look: Runs the rule and each unsettled challenger need next; None when decided or the looks are spent.
        runs_to_decide: Runs of the rule and of each unsettled challenger, in all, that would likely decide (see
            `decide`); None when decided, before the first look, or beyond a hundred times the plan's last look.
    """

    outcome: Outcome
    runs: int
    regret: Interval
    comparisons: Mapping[str, Comparison]
    best: str | None
    unsettled: tuple[str, ...]
    next_look: int | None
    runs_to_decide: int | None

    @property
    def exact(self) -> bool:
        """Whether it rests on known accuracies, one each, and not on runs; planned looks start at 2."""
        return self.runs == 1


def decide(
    rule_scores: NDArray[np.float64], challengers: Mapping[str, NDArray[np.float64]], margin: float, plan: Plan
) -> Verdict:
    """The verdict at the first decisive look, whatever scores came after it.

    Replays the looks in order, with everyone's first n scores at a look of n. A challenger whose upper limit is within
    the margin is settled. `near-optimal`: all are settled. `not near-optimal`: some lower limit exceeds the margin.

    Limits are Welch's (1947, doi:10.1093/biomet/34.1-2.28) for the difference of two means with unequal variances.
    Lower limits are Bonferroni-adjusted over the K challengers planned, since any one of them suffices; upper limits
    are not adjusted over challengers, since all must pass (intersection-union test, Berger 1982,
    doi:10.1080/00401706.1982.10487790). The published regret interval is the largest lower to the largest upper limit,
    not below 0; it covers the regret against these challengers with at least the plan's confidence.

    Scores are multiples of one over the number of test images, so n of them can be equal. An sd is therefore taken to
    be at least half the smallest gap between two different scores of the pair: were it larger than half a step of
    rounding, normal scores would agree n times with probability below 0.69^n. Where all scores of a pair agree, not
    even the step is known, and the limits are -1 and 1. Without this, equal scores would give an interval of no width.

    `runs_to_decide` takes the present means and variances for the truth and asks for a chance of 0.8 that each
    unsettled challenger is settled, or one shown to be better by more than the margin, at the level of the plan's last
    look. It misleads early, and most where a difference is close to the margin.

    Assumes runs that are independent, with means nearly normal. It misleads when runs collapse so rarely that n of
    them show none, when failed runs were left out of one side's scores, when challengers were picked by their scores
    on this test split, and as a statement about other data: it is about training seeds, given the data and its split.
    The mean regret is the largest of several noisy differences, thus somewhat too large; its interval is not.

    Args:
        rule_scores: Accuracy of the rule's runs in seed order, fractions; shape `(n_runs,)`.
        challengers: The same for each challenger, by name; 1 to `plan.challengers` of them, of any lengths.
        margin: The regret one is willing to call nothing, a fraction in [0, 1).
        plan: Looks, confidence and K.

    Raises:
        ValueError: No challenger or more than planned, a margin out of range, or scores that are no fractions.
    """
    if not 1 <= len(challengers) <= plan.challengers:
        msg = (
            f"{len(challengers)} challengers came; the plan allows 1 to {plan.challengers}, fixed before the first run"
        )
        raise ValueError(msg)
    if not 0 <= margin < 1:
        msg = f"margin {margin} is out of range; it is an accuracy, a fraction in [0, 1)"
        raise ValueError(msg)
    rule = _checked_scores("the rule", rule_scores)
    scores = {name: _checked_scores(name, challengers[name]) for name in sorted(challengers)}
    comparisons = {name: Comparison(0.0, -1.0, 1.0, runs=0, settled=False) for name in scores}
    reached = 0
    for runs, tail in zip(plan.looks, plan.tails(), strict=True):
        unsettled = [name for name in scores if not comparisons[name].settled]
        if any(len(arm) < runs for arm in (rule, *(scores[name] for name in unsettled))):
            break
        for name in unsettled:
            comparisons[name] = _compare(rule[:runs], scores[name][:runs], margin, tail / plan.challengers, tail)
        reached = runs
        if _outcome(comparisons, margin) != "undecided":
            break
    return _verdict(rule, scores, comparisons, margin, plan, reached)


def mean_interval(scores: NDArray[np.float64], confidence: float) -> Interval:
    """Student's t interval of a mean accuracy.

    Assumes independent runs with a mean nearly normal. It misleads when read as a test: two means whose intervals
    overlap may still differ, which is `decide`'s business. The sd is floored as there; where all scores agree, nothing
    is known of their spread and the limits are 0 and 1.

    Args:
        scores: Accuracies, fractions; shape `(n_runs,)`, at least 2.
        confidence: In (0, 1).

    Raises:
        ValueError: Fewer than two scores, scores that are no fractions, or a confidence out of range.
    """
    _check_confidence(confidence)
    checked = _checked_scores("the schedule", scores)
    if len(checked) < 2:
        msg = f"{len(checked)} score(s) came; an interval needs at least 2 runs"
        raise ValueError(msg)
    mean, floor = float(checked.mean()), _variance_floor(checked)
    if floor is None:
        return Interval(mean, 0.0, 1.0)
    error = math.sqrt(max(float(checked.var(ddof=1)), floor) / len(checked))
    half = float(stdtrit(len(checked) - 1, (1 + confidence) / 2)) * error
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def image_bootstrap(
    rule_correct: NDArray[np.float64],
    challenger_correct: NDArray[np.float64],
    confidence: float,
    rng: np.random.Generator,
    resamples: int = 4000,
) -> Interval:
    """Percentile interval of challenger minus rule, over which images happened to be in the test split.

    Paired bootstrap (Efron 1979, doi:10.1214/aos/1176344552): images are redrawn with replacement, each with its two
    outcomes. Assumes images drawn independently of one population. It misleads when images come in groups (one writer,
    one video), with fewer than about 50 images, and when the two schedules agree on every image: then its width is 0.
    Training seeds are averaged out beforehand and their noise is only in part in it, so it stands beside `decide`'s
    interval and does not replace it.

    Args:
        rule_correct: Per test image, the share of the rule's runs that classified it correctly; shape `(n_images,)`.
        challenger_correct: The same for the challenger, same images in the same order.
        confidence: In (0, 1).
        rng: Draws the resamples.
        resamples: How many.

    Raises:
        ValueError: No image, shapes that differ, or a confidence out of range.
    """
    _check_confidence(confidence)
    if rule_correct.ndim != 1 or rule_correct.shape != challenger_correct.shape or not len(rule_correct):
        msg = f"correctness of shapes {rule_correct.shape} and {challenger_correct.shape} came; both are (n_images,)"
        raise ValueError(msg)
    # Few differences are distinct, multiples of 1 / runs; redrawing their counts equals redrawing the images.
    values, counts = np.unique(challenger_correct - rule_correct, return_counts=True)
    n_images = len(rule_correct)
    means = rng.multinomial(n_images, counts / n_images, size=resamples) @ values / n_images
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values @ counts / n_images), float(low), float(high))


def resolvable_margin(n_images: int, confidence: float) -> float:
    """The half-width `image_bootstrap` can be expected to have on a test split of this size, as a fraction.

    The normal limit of the bootstrap at the planning value `IMAGE_DIFFERENCE_SD`. It misleads where schedules disagree
    on more or fewer images than the planning value says: nearly equal schedules, or a data set much harder or easier.

    Args:
        n_images: Images of the test split, at least 1.
        confidence: In (0, 1).

    Raises:
        ValueError: No image, or a confidence out of range.
    """
    _check_confidence(confidence)
    if n_images < 1:
        msg = f"a test split of {n_images} images resolves nothing; it needs at least 1"
        raise ValueError(msg)
    return float(ndtri((1 + confidence) / 2)) * IMAGE_DIFFERENCE_SD / math.sqrt(n_images)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        msg = f"confidence {confidence} is out of range; it is a fraction between 0 and 1, such as 0.95"
        raise ValueError(msg)


def _checked_scores(name: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if scores.ndim != 1 or not np.all((scores >= 0) & (scores <= 1)):
        msg = f"scores of {name} must be accuracies in [0, 1] of shape (n_runs,), not {scores}"
        raise ValueError(msg)
    return scores.astype(np.float64)


def _variance_floor(*arms: NDArray[np.float64]) -> float | None:
    """Least variance to believe, from the smallest gap between different scores; None where all agree."""
    gaps = np.diff(np.sort(np.concatenate(arms)))
    gaps = gaps[gaps > _SAME_SCORE]
    return float(gaps.min() / 2) ** 2 if gaps.size else None


def _variances(rule: NDArray[np.float64], challenger: NDArray[np.float64]) -> tuple[float, float] | None:
    """Floored variances of both arms; None where all scores agree."""
    floor = _variance_floor(rule, challenger)
    if floor is None:
        return None
    return max(float(rule.var(ddof=1)), floor), max(float(challenger.var(ddof=1)), floor)


def _compare(
    rule: NDArray[np.float64], challenger: NDArray[np.float64], margin: float, low_tail: float, high_tail: float
) -> Comparison:
    """Welch limits of challenger minus rule, both of shape `(n_runs,)`, at these tail probabilities."""
    runs, mean = len(rule), float(challenger.mean() - rule.mean())
    variances = _variances(rule, challenger)
    if variances is None:
        return Comparison(mean, -1.0, 1.0, runs, settled=False)
    total = sum(variances)
    freedom = (runs - 1) * total**2 / sum(v**2 for v in variances)  # Welch & Satterthwaite, at equal runs
    error = math.sqrt(total / runs)
    low = max(-1.0, mean + float(stdtrit(freedom, low_tail)) * error)
    high = min(1.0, mean - float(stdtrit(freedom, high_tail)) * error)
    return Comparison(mean, low, high, runs, settled=high <= margin)


def _outcome(comparisons: Mapping[str, Comparison], margin: float) -> Outcome:
    if all(comparison.settled for comparison in comparisons.values()):
        return "near-optimal"
    # A settled challenger's lower limit is below its upper one, hence within the margin.
    return "not near-optimal" if any(c.low > margin for c in comparisons.values()) else "undecided"


def _verdict(
    rule: NDArray[np.float64],
    scores: Mapping[str, NDArray[np.float64]],
    comparisons: Mapping[str, Comparison],
    margin: float,
    plan: Plan,
    reached: int,
) -> Verdict:
    """Sum up the comparisons of the last complete look, `reached`."""
    outcome = _outcome(comparisons, margin)
    best = max(comparisons, key=lambda name: comparisons[name].mean)
    undecided = outcome == "undecided"
    return Verdict(
        outcome,
        reached,
        regret=Interval(
            max(0.0, comparisons[best].mean),
            max(0.0, *(c.low for c in comparisons.values())),
            max(0.0, *(c.high for c in comparisons.values())),
        ),
        comparisons=comparisons,
        best=best if comparisons[best].mean > 0 else None,
        unsettled=tuple(name for name, c in comparisons.items() if not c.settled),
        next_look=next((n for n in plan.looks if n > reached), None) if undecided else None,
        runs_to_decide=_runs_to_decide(rule, scores, comparisons, margin, plan, reached) if undecided else None,
    )


def _runs_to_decide(
    rule: NDArray[np.float64],
    scores: Mapping[str, NDArray[np.float64]],
    comparisons: Mapping[str, Comparison],
    margin: float,
    plan: Plan,
    reached: int,
) -> int | None:
    """The usual sample size for a difference of means, rounded up to a planned look where one is left."""
    if not reached:
        return None
    tail = plan.tails()[-1]
    settling: list[float] = []
    exceeding: list[float] = []
    for name, comparison in comparisons.items():
        if comparison.settled:
            continue
        better = comparison.mean > margin
        quantile = float(ndtri(1 - (tail / plan.challengers if better else tail)) + ndtri(_LIKELY))
        variances = _variances(rule[:reached], scores[name][:reached])
        distance = abs(comparison.mean - margin)
        needed = sum(variances) * (quantile / distance) ** 2 if variances and distance else math.inf
        (exceeding if better else settling).append(needed)
    estimate = min(exceeding) if exceeding else max(settling)
    if estimate > _FARTHEST_ESTIMATE * plan.looks[-1]:
        return None
    runs = max(math.ceil(estimate), reached + 1)
    return next((n for n in plan.looks if n >= runs), runs)
