"""Is a rule near-optimal? The decision, and the intervals published beside it.

Owns the three verdicts, the regret interval, which case's next look comes first, and the bootstrap over test images;
the looks and their limits are in `looks`, the forecast in `outlook`. Pure arithmetic on scores: it must not know
schedules, training or storage.

Two errors are bounded, each by half of alpha = 1 - confidence, over the whole sequence of looks: `near-optimal` for a
rule whose regret exceeds the margin, and `not near-optimal` for one whose regret does not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from search import outlook
from search.looks import Plan, Replay, check_confidence, replay, variance_floor

Outcome = Literal["near-optimal", "not near-optimal", "undecided"]

IMAGE_DIFFERENCE_SD = 0.05
"""Planning value: sd over test images of the difference in correctness of two schedules, each averaged over seeds.

Measured on digits (539 test images, 64 seeds, five pairs of schedules of like cost): 0.014 to 0.028; doubled here
because schedules disagree on more images of harder data.
"""


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
            `outlook.runs_to_decide`); None when decided, before the first look, where all scores of a pair agree, or
            beyond a hundred times the plan's last look.
        chance_per_run: The chance to be decided at a planned look ahead, per run it costs (`outlook.chance_per_run`);
            None when decided, before the first look, or when the looks are spent.
    """

    outcome: Outcome
    runs: int
    regret: Interval
    comparisons: Mapping[str, Comparison]
    best: str | None
    unsettled: tuple[str, ...]
    next_look: int | None
    runs_to_decide: int | None
    chance_per_run: float | None

    @property
    def next_runs(self) -> int:
        """Runs of the rule and all unsettled challengers together up to the next look; 0 when there is none."""
        return 0 if self.next_look is None else (self.next_look - self.runs) * (1 + len(self.unsettled))

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

    Accuracies are multiples of one over the number of test images, so n of them can be equal (balanced ones seldom
    are). An sd is therefore taken to
    be at least half the smallest gap between two different scores of the pair: were it larger than half a step of
    rounding, normal scores would agree n times with probability below 0.69^n. Where all scores of a pair agree, not
    even the step is known, and the limits are -1 and 1. Without this, equal scores would give an interval of no width.

    Arms may be of any lengths: a look waits for the rule and every unsettled challenger, and later scores are not
    read, so a missing run delays the verdict and never tilts it. A run that failed for a reason of its own must come
    as a score, such as 0; left out, it would make its arm look better than it is.

    Assumes runs that are independent, with means nearly normal; how far that carries is measured by `calibration`. It
    misleads when one arm's runs collapse so rarely that n of them show none, when challengers were picked by their
    scores on this test split, and as a statement about other data: it is about training seeds, given the data and its
    split. The mean regret is the largest of several noisy differences, thus somewhat too large; its interval is not.

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
    names = sorted(challengers)
    scores = [_checked_scores(name, challengers[name]) for name in names]
    arms = np.full((1 + len(scores), max(map(len, (rule, *scores)))), np.nan)
    for arm, values in zip(arms, (rule, *scores), strict=True):
        arm[: len(values)] = values
    return _verdict(names, arms[0], arms[1:], replay(arms[0], arms[1:], margin, plan), margin, plan)


def next_case(verdicts: Sequence[Verdict], allowance: int) -> int | None:
    """The case whose next look comes first when cases share an allowance of runs; None when no look is left in it.

    First whoever had no look yet, the cheapest first; then the largest chance of a decision per run. Looks stay those
    of each case's own plan and only their order is chosen, from the scores or not, so that each verdict errs as if it
    were alone. It misleads in that it is greedy, and when cases share schedules, whose runs are then counted twice.

    Args:
        verdicts: Of the cases, as they stand.
        allowance: Runs left for all of them together.
    """
    affordable = [i for i, verdict in enumerate(verdicts) if 0 < verdict.next_runs <= allowance]
    return min(affordable, key=lambda i: _urgency(verdicts[i]), default=None)


def _urgency(verdict: Verdict) -> tuple[float, int]:
    return -math.inf if verdict.chance_per_run is None else -verdict.chance_per_run, verdict.next_runs


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
    check_confidence(confidence)
    checked = _checked_scores("the schedule", scores)
    if len(checked) < 2:
        msg = f"{len(checked)} score(s) came; an interval needs at least 2 runs"
        raise ValueError(msg)
    mean, floor = float(checked.mean()), float(variance_floor(checked))
    if math.isnan(floor):
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
    parts: Sequence[NDArray[np.int64]] | None = None,
) -> Interval:
    """Percentile interval of challenger minus rule, over which images happened to be in the test split.

    Paired bootstrap (Efron 1979, doi:10.1214/aos/1176344552): images are redrawn with replacement, each with its two
    outcomes. Assumes images drawn independently of one population. It misleads when images come in groups (one writer,
    one video), with fewer than about 50 images, and when the two schedules agree on every image: then its width is 0.
    With parts, such as the classes of a balanced accuracy, images are redrawn within each: the sizes of a stratified
    split's classes are no chance, and a class has an accuracy only while it has images. It then misleads, too narrow,
    where parts have a few images each, and knows nothing of a part of one.
    Training seeds are averaged out beforehand and their noise is only in part in it, so it stands beside `decide`'s
    interval and does not replace it.

    Args:
        rule_correct: Per test image, the share of the rule's runs that classified it correctly; shape `(n_images,)`.
        challenger_correct: The same for the challenger, same images in the same order.
        confidence: In (0, 1).
        rng: Draws the resamples.
        resamples: How many.
        parts: Indices of the images of each part, whose differences are averaged; None for one part of all.

    Raises:
        ValueError: No image, shapes that differ, or a confidence out of range.
    """
    check_confidence(confidence)
    if rule_correct.ndim != 1 or rule_correct.shape != challenger_correct.shape or not len(rule_correct):
        msg = f"correctness of shapes {rule_correct.shape} and {challenger_correct.shape} came; both are (n_images,)"
        raise ValueError(msg)
    # Few differences are distinct, multiples of 1 / runs; redrawing their counts equals redrawing the images.
    difference, means, redrawn = challenger_correct - rule_correct, [], []
    for part in [np.arange(len(difference))] if parts is None else parts:
        values, counts = np.unique(difference[part], return_counts=True)
        means.append(values @ counts / len(part))
        redrawn.append(rng.multinomial(len(part), counts / len(part), size=resamples) @ values / len(part))
    low, high = np.quantile(np.mean(redrawn, axis=0), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.mean(means)), float(low), float(high))


def resolvable_margin(n_images: float, confidence: float) -> float:
    """The half-width `image_bootstrap` can be expected to have on a test split of this size, as a fraction.

    The normal limit of the bootstrap at the planning value `IMAGE_DIFFERENCE_SD`. It misleads where schedules disagree
    on more or fewer images than the planning value says: nearly equal schedules, or a data set much harder or easier.

    Args:
        n_images: Images of the test split, at least 1; of an unequal one `scoring.effective_images`.
        confidence: In (0, 1).

    Raises:
        ValueError: No image, or a confidence out of range.
    """
    check_confidence(confidence)
    if n_images < 1:
        msg = f"a test split of {n_images} images resolves nothing; it needs at least 1"
        raise ValueError(msg)
    return float(ndtri((1 + confidence) / 2)) * IMAGE_DIFFERENCE_SD / math.sqrt(n_images)


def _checked_scores(name: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if scores.ndim != 1 or not np.all((scores >= 0) & (scores <= 1)):
        msg = f"scores of {name} must be accuracies in [0, 1] of shape (n_runs,), not {scores}"
        raise ValueError(msg)
    return scores.astype(np.float64)


def _verdict(
    names: Sequence[str],
    rule: NDArray[np.float64],
    challengers: NDArray[np.float64],
    stand: Replay,
    margin: float,
    plan: Plan,
) -> Verdict:
    """Sum up a replay of one confirmation: scores `(n_runs,)` and `(K, n_runs)`."""
    outcome: Outcome = (
        "near-optimal" if stand.near_optimal else "not near-optimal" if stand.not_near_optimal else "undecided"
    )
    reached = int(stand.reached)
    next_look = next((look for look in plan.looks if look > reached), None) if outcome == "undecided" else None
    needed, chance = None, None
    if reached and outcome == "undecided":
        found = outlook.moments(rule, challengers, ~stand.settled, stand.reached)
        estimate = float(outlook.runs_to_decide(found, margin, plan))
        needed = None if math.isnan(estimate) else int(estimate)
        chance = float(outlook.chance_per_run(found, margin, plan)) if next_look else None
    best = int(stand.mean.argmax())
    columns = (stand.mean, stand.low, stand.high, stand.runs, stand.settled)
    return Verdict(
        outcome,
        reached,
        regret=Interval(*(max(0.0, float(limit.max())) for limit in columns[:3])),
        comparisons={
            name: Comparison(*row) for name, *row in zip(names, *(column.tolist() for column in columns), strict=True)
        },
        best=names[best] if stand.mean[best] > 0 else None,
        unsettled=tuple(name for name, settled in zip(names, stand.settled, strict=True) if not settled),
        next_look=next_look,
        runs_to_decide=needed,
        chance_per_run=chance,
    )
