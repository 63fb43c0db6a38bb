from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_ind

from search.looks import Plan, replay
from search.verdict import (
    IMAGE_DIFFERENCE_SD,
    Interval,
    Verdict,
    decide,
    image_bootstrap,
    mean_interval,
    next_case,
    resolvable_margin,
)

MARGIN = 0.005
PLAN = Plan((16, 32, 64, 128), 0.95, 4)
REPEATS = 2000


def normal_scores(rng, mean, sd, runs=128):
    return np.clip(rng.normal(mean, sd, runs), 0, 1)


def image_scores(rng, mean, sd, runs=128):
    """Accuracies on 540 images, the difficulty of each run drawn log-normally around the mean: discrete and skewed."""
    spread = sd / (1 - mean)
    error = (1 - mean) * rng.lognormal(-(spread**2) / 2, spread, runs)
    return 1 - rng.binomial(540, np.minimum(error, 1)) / 540


def share(outcome, regrets, sd, scores=normal_scores, repeats=REPEATS, judge=None):
    """How often the rule gets this outcome when the challengers are truly better by `regrets`."""
    rng = np.random.default_rng(1)
    shape = (repeats, PLAN.looks[-1])
    rule = scores(rng, 0.95, sd, shape)
    others = [scores(rng, 0.95 + regret, sd * (1 + i / 4), shape) for i, regret in enumerate(regrets)]
    near, not_near = (judge or judged)(rule, np.stack(others, 1))
    return (near if outcome == "near-optimal" else not_near).mean()


def judged(rule, others):
    stand = replay(rule, others, MARGIN, PLAN)
    return stand.near_optimal, stand.not_near_optimal


def allowed(level, repeats=REPEATS):
    """The level plus three standard errors of its Monte Carlo estimate."""
    return level + 3 * np.sqrt(level * (1 - level) / repeats)


def peek(rule, others):
    """The sloppy verdict: full alpha at every look, for every challenger; the first look that decides, decides."""
    near = not_near = np.zeros(len(rule), bool)
    for runs in PLAN.looks:
        stand = replay(rule, others, MARGIN, Plan((runs,), PLAN.confidence, 1))
        fresh = ~near & ~not_near
        near, not_near = near | stand.near_optimal & fresh, not_near | stand.not_near_optimal & fresh
    return near, not_near


@st.composite
def arms(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    runs = draw(st.integers(0, 70))
    count = draw(st.integers(1, 4))
    spread = draw(st.sampled_from([0.001, 0.004, 0.02]))
    rounded = draw(st.booleans())
    scores = [rng.normal(0.6 + rng.choice([-0.02, 0, 0.005, 0.02]), spread, runs) for _ in range(count + 1)]
    if rounded:
        scores = [np.round(s * 128) / 128 for s in scores]
    return scores[0], {f"c{i}": s for i, s in enumerate(scores[1:])}


# ---- the level, by Monte Carlo


@pytest.mark.parametrize("scores", [normal_scores, image_scores])
def test_a_rule_within_the_margin_is_seldom_called_not_near_optimal(scores):
    assert share("not near-optimal", [MARGIN] * 4, sd=MARGIN, scores=scores) <= allowed(0.025)


@pytest.mark.parametrize("scores", [normal_scores, image_scores])
@pytest.mark.parametrize("regrets", [[MARGIN], [MARGIN, -0.05, -0.05, -0.05]])
def test_a_rule_beyond_the_margin_is_seldom_called_near_optimal(scores, regrets):
    assert share("near-optimal", regrets, sd=MARGIN, scores=scores) <= allowed(0.025)


def test_peeking_at_full_alpha_breaks_the_level():
    """The calibration above can fail: it does for looks and challengers that are not paid for."""
    assert share("not near-optimal", [MARGIN] * 4, sd=MARGIN, judge=peek) > 3 * allowed(0.025)
    assert share("near-optimal", [MARGIN], sd=MARGIN, judge=peek) > allowed(0.025)


@pytest.mark.parametrize("margins", [2, 3])
def test_a_regret_of_two_margins_is_found(margins):
    assert share("not near-optimal", [0, 0, 0, margins * MARGIN], sd=MARGIN) >= 0.8


def test_no_regret_is_found():
    assert share("near-optimal", [0, 0, 0, 0], sd=MARGIN) >= 0.8


def test_the_regret_interval_covers_the_regret():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        others = {str(i): normal_scores(rng, 0.95 + i * 0.002, 0.004) for i in range(4)}
        regret = decide(normal_scores(rng, 0.95, 0.008), others, MARGIN, PLAN).regret
        covered += regret.low <= 0.006 <= regret.high
    assert covered / 600 >= 1 - allowed(0.05, 600)


# ---- the limits


def test_limits_are_welchs():
    rng = np.random.default_rng(0)
    rule, challenger = rng.normal(0.9, 0.004, 20), rng.normal(0.91, 0.02, 20)
    comparison = decide(rule, {"c": challenger}, MARGIN, Plan((20,), 0.9, 1)).comparisons["c"]
    expected = ttest_ind(challenger, rule, equal_var=False).confidence_interval(0.9)
    assert (comparison.low, comparison.high) == pytest.approx((expected.low, expected.high))


def test_each_look_and_challenger_is_paid_for():
    rng = np.random.default_rng(0)
    rule, challenger = rng.normal(0.9, 0.004, 16), rng.normal(0.91, 0.02, 16)
    comparison = decide(rule, {"c": challenger}, MARGIN, PLAN).comparisons["c"]
    welch = ttest_ind(challenger, rule, equal_var=False)
    tail = 0.025 * 16 / 128
    assert comparison.low == pytest.approx(welch.confidence_interval(1 - 2 * tail / 4).low)
    assert comparison.high == pytest.approx(welch.confidence_interval(1 - 2 * tail).high)


@given(st.lists(st.integers(2, 500), min_size=1, max_size=8, unique=True), st.floats(0.5, 0.999))
def test_looks_spend_all_of_alpha_and_no_more(looks, confidence):
    assert sum(Plan(tuple(sorted(looks)), confidence, 3).tails()) == pytest.approx((1 - confidence) / 2)


def test_equal_scores_do_not_make_certainty():
    """Sixteen equal scores on each side: the step between them bounds what is known of their spread."""
    verdict = decide(np.full(16, 0.95), {"c": np.full(16, 0.956)}, MARGIN, PLAN)
    assert verdict.outcome == "undecided"
    assert verdict.comparisons["c"].low < 0.005 < 0.006 < verdict.comparisons["c"].high


def test_scores_that_all_agree_say_nothing():
    verdict = decide(np.ones(128), {"c": np.ones(128)}, MARGIN, PLAN)
    assert (verdict.outcome, verdict.regret, verdict.runs_to_decide) == ("undecided", Interval(0, 0, 1), None)


def test_rounding_of_floats_is_no_gap():
    ulp = np.where(np.arange(16) % 2, 0.5, np.nextafter(0.5, 1))
    assert decide(ulp, {"c": ulp}, MARGIN, PLAN).outcome == "undecided"


# ---- the replay of the looks


def test_a_settled_challenger_gets_no_further_runs_and_keeps_its_limit():
    rng = np.random.default_rng(0)
    rule, close = normal_scores(rng, 0.95, 0.004), normal_scores(rng, 0.955, 0.004)
    worse = normal_scores(rng, 0.9, 0.004, runs=16)
    verdict = decide(rule, {"worse": worse, "close": close}, MARGIN, PLAN)
    assert (verdict.comparisons["worse"].settled, verdict.comparisons["worse"].runs) == (True, 16)
    assert verdict.unsettled == ("close",)
    assert (verdict.outcome, verdict.runs, verdict.next_look) == ("undecided", 128, None)
    assert verdict.runs_to_decide is None or verdict.runs_to_decide > 128
    # Whatever a settled challenger does afterwards counts neither for nor against the rule.
    revived = decide(rule, {"worse": np.r_[worse, np.ones(112)], "close": close}, MARGIN, PLAN)
    assert revived == verdict


def test_a_look_waits_for_everyone_in_play():
    rng = np.random.default_rng(0)
    rule, close = normal_scores(rng, 0.95, 0.004, 64), normal_scores(rng, 0.954, 0.004, 40)
    verdict = decide(rule, {"close": close}, MARGIN, PLAN)
    assert (verdict.outcome, verdict.runs, verdict.next_look) == ("undecided", 32, 64)
    assert verdict.comparisons["close"].runs == 32
    assert verdict.runs_to_decide is None or verdict.runs_to_decide >= 64


def test_before_the_first_look_nothing_is_known():
    verdict = decide(np.full(15, 0.9), {"c": np.full(16, 0.99)}, MARGIN, PLAN)
    assert (verdict.outcome, verdict.runs, verdict.regret) == ("undecided", 0, Interval(0, 0, 1))
    assert (verdict.best, verdict.unsettled, verdict.next_look) == (None, ("c",), 16)
    assert verdict.runs_to_decide is None


def test_the_best_is_the_rule_when_no_challenger_is_better():
    rng = np.random.default_rng(0)
    rule = normal_scores(rng, 0.95, 0.002)
    verdict = decide(rule, {"a": normal_scores(rng, 0.9, 0.002), "b": normal_scores(rng, 0.8, 0.002)}, MARGIN, PLAN)
    assert (verdict.outcome, verdict.best, verdict.runs, verdict.next_look) == ("near-optimal", None, 16, None)
    assert verdict.regret == Interval(0, 0, 0)


def test_the_best_is_named():
    rng = np.random.default_rng(0)
    others = {name: normal_scores(rng, mean, 0.002) for name, mean in [("a", 0.96), ("b", 0.98), ("c", 0.9)]}
    verdict = decide(normal_scores(rng, 0.95, 0.002), others, MARGIN, PLAN)
    assert (verdict.outcome, verdict.best, verdict.runs_to_decide) == ("not near-optimal", "b", None)
    assert verdict.regret.low < 0.03 < verdict.regret.high


# ---- which case's next look comes first


def case(chance, runs=16, next_look=32, unsettled=("c",)):
    verdict = decide(np.full(4, 0.5), {"c": np.full(4, 0.5)}, MARGIN, PLAN)
    return replace(verdict, runs=runs, next_look=next_look, unsettled=unsettled, chance_per_run=chance)


def test_the_case_with_the_best_chance_per_run_comes_first():
    assert next_case([case(0.001), case(0.004), case(0.002)], 1000) == 1


def test_a_case_without_a_look_comes_before_all_others():
    assert next_case([case(0.9), case(None, runs=0, next_look=16)], 1000) == 1


def test_what_the_allowance_does_not_pay_waits():
    dear = case(0.9, next_look=128, unsettled=("a", "b"))
    assert dear.next_runs == 336
    assert next_case([dear, case(0.001)], 336) == 0
    assert next_case([dear, case(0.001)], 335) == 1
    assert next_case([dear, case(0.001)], 31) is None


def test_closed_cases_ask_for_nothing():
    assert case(0.9, next_look=None).next_runs == 0
    assert next_case([case(None, next_look=None)], 1000) is None


# ---- laws


@given(arms(), st.randoms())
def test_the_order_of_challengers_does_not_matter(sample, shuffle):
    rule, others = sample
    names = list(others)
    shuffle.shuffle(names)
    assert decide(rule, {name: others[name] for name in names}, MARGIN, PLAN) == decide(rule, others, MARGIN, PLAN)


@given(arms(), st.floats(-0.3, 0.2))
def test_a_constant_added_to_everyone_does_not_matter(sample, constant):
    rule, others = sample
    before = decide(rule, others, MARGIN, PLAN)
    after = decide(rule + constant, {name: scores + constant for name, scores in others.items()}, MARGIN, PLAN)
    assert (after.outcome, after.runs) == (before.outcome, before.runs)
    for name, comparison in before.comparisons.items():
        moved = after.comparisons[name]
        assert (moved.mean, moved.low, moved.high) == pytest.approx(
            (comparison.mean, comparison.low, comparison.high), abs=1e-9
        )


@given(arms(), st.integers(0, 2**32))
def test_later_scores_never_change_a_decided_verdict(sample, seed):
    rule, others = sample
    verdict = decide(rule, others, MARGIN, PLAN)
    rng = np.random.default_rng(seed)
    longer = {name: np.r_[scores, rng.random(60)] for name, scores in others.items()}
    if verdict.outcome != "undecided":
        assert decide(np.r_[rule, rng.random(60)], longer, MARGIN, PLAN) == verdict


@given(arms(), st.integers(0, 4), st.integers(0, 2**32))
def test_runs_of_some_arms_alone_change_nothing(sample, longer, seed):
    """A missing run holds its look back; it never makes arms be compared at unequal numbers of runs."""
    rule, others = sample
    rng = np.random.default_rng(seed)
    verdict = decide(rule, others, MARGIN, PLAN)
    uneven = [np.r_[scores, rng.random(200)] if i < longer else scores for i, scores in enumerate(others.values())]
    assert decide(rule, dict(zip(others, uneven, strict=True)), MARGIN, PLAN) == verdict
    if longer < len(others) and verdict.unsettled and set(verdict.unsettled) & set(list(others)[longer:]):
        later = np.r_[rule, rng.random(200)]
        assert decide(later, dict(zip(others, uneven, strict=True)), MARGIN, PLAN) == verdict


@given(arms())
def test_a_verdict_is_that_of_everyones_first_runs(sample):
    rule, others = sample
    verdict = decide(rule, others, MARGIN, PLAN)
    cut = {name: scores[: verdict.comparisons[name].runs] for name, scores in others.items()}
    assert decide(rule[: verdict.runs], cut, MARGIN, PLAN) == verdict


@given(arms())
def test_a_verdict_is_consistent(sample):
    rule, others = sample
    verdict = decide(rule, others, MARGIN, PLAN)
    assert verdict.regret.low <= verdict.regret.mean <= verdict.regret.high
    expected = {
        "near-optimal": verdict.regret.high <= MARGIN,
        "not near-optimal": verdict.regret.low > MARGIN,
        "undecided": verdict.regret.low <= MARGIN < verdict.regret.high,
    }
    assert [outcome for outcome, holds in expected.items() if holds] == [verdict.outcome]
    assert (verdict.next_look is not None) <= (verdict.outcome == "undecided")


def test_verdicts_are_frozen():
    verdict = decide(np.full(4, 0.5), {"c": np.full(4, 0.5)}, MARGIN, PLAN)
    assert isinstance(replace(verdict, runs=3), Verdict)
    with pytest.raises(AttributeError):
        verdict.runs = 3  # type: ignore[misc]


# ---- refusals


@pytest.mark.parametrize(
    ("looks", "confidence", "challengers", "message"),
    [
        ((), 0.95, 4, "must rise"),
        ((1, 4), 0.95, 4, "at 2 runs or more"),
        ((8, 8), 0.95, 4, "must rise"),
        ((8,), 1.0, 4, "confidence 1.0"),
        ((8,), 0.95, 0, "at least 1"),
    ],
)
def test_plans_that_cannot_be_kept_are_refused(looks, confidence, challengers, message):
    with pytest.raises(ValueError, match=message):
        Plan(looks, confidence, challengers)


def test_what_cannot_be_judged_is_refused():
    fine = np.full(16, 0.5)
    with pytest.raises(ValueError, match="0 challengers"):
        decide(fine, {}, MARGIN, PLAN)
    with pytest.raises(ValueError, match="5 challengers came; the plan allows 1 to 4"):
        decide(fine, {str(i): fine for i in range(5)}, MARGIN, PLAN)
    with pytest.raises(ValueError, match=r"margin -0\.1"):
        decide(fine, {"c": fine}, -0.1, PLAN)
    with pytest.raises(ValueError, match="scores of c must be accuracies"):
        decide(fine, {"c": fine * 100}, MARGIN, PLAN)
    with pytest.raises(ValueError, match="scores of the rule"):
        decide(np.full(16, np.nan), {"c": fine}, MARGIN, PLAN)
    with pytest.raises(ValueError, match="low <= high"):
        Interval(0.5, 0.6, 0.4)


# ---- intervals beside the verdict


def test_mean_interval_is_students():
    scores = np.random.default_rng(0).normal(0.9, 0.01, 12)
    expected = ttest_1samp(scores, 0).confidence_interval(0.9)
    interval = mean_interval(scores, 0.9)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((scores.mean(), expected.low, expected.high))


def test_mean_interval_needs_two_runs_and_a_spread():
    assert mean_interval(np.ones(8), 0.95) == Interval(1, 0, 1)
    with pytest.raises(ValueError, match="at least 2 runs"):
        mean_interval(np.ones(1), 0.95)


def test_image_bootstrap_has_the_width_of_the_normal_limit():
    rng = np.random.default_rng(0)
    rule, challenger = rng.binomial(16, 0.9, 800) / 16, rng.binomial(16, 0.92, 800) / 16
    interval = image_bootstrap(rule, challenger, 0.95, rng)
    difference = challenger - rule
    half = 1.96 * difference.std() / np.sqrt(800)
    assert interval.mean == pytest.approx(difference.mean())
    assert (interval.low, interval.high) == pytest.approx(
        (difference.mean() - half, difference.mean() + half), abs=0.1 * half
    )


def test_image_bootstrap_covers_the_population():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        difference = rng.choice([-0.5, 0, 0.25], p=[0.02, 0.9, 0.08], size=500)
        interval = image_bootstrap(np.full(500, 0.5), 0.5 + difference, 0.9, rng, resamples=500)
        covered += interval.low <= 0.01 <= interval.high
    assert 0.8 <= covered / 200 <= 0.97


def test_image_bootstrap_uses_its_generator_alone():
    rule, challenger = np.random.default_rng(0).random((2, 300))
    first = image_bootstrap(rule, challenger, 0.95, np.random.default_rng(7))
    np.random.seed(1)  # noqa: NPY002 # the global seed is what must not matter
    assert image_bootstrap(rule, challenger, 0.95, np.random.default_rng(7)) == first


def test_image_bootstrap_refuses_images_that_do_not_match():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        image_bootstrap(np.ones(3), np.ones(4), 0.95, np.random.default_rng(0))


def test_one_part_of_all_images_is_what_is_redrawn_unless_parts_are_given():
    rule, challenger = np.random.default_rng(0).integers(0, 9, (2, 300)) / 8
    plain = image_bootstrap(rule, challenger, 0.95, np.random.default_rng(7))
    assert image_bootstrap(rule, challenger, 0.95, np.random.default_rng(7), parts=[np.arange(300)]) == plain


def test_equal_classes_that_gain_alike_give_the_interval_of_all_images():
    rng = np.random.default_rng(0)
    gains = np.repeat(rng.choice([-0.5, 0, 0.25], size=200), 4)  # the same in each of four classes
    parts = [np.arange(label, 800, 4) for label in range(4)]
    plain = image_bootstrap(np.full(800, 0.5), 0.5 + gains, 0.95, rng, 20_000)
    balanced = image_bootstrap(np.full(800, 0.5), 0.5 + gains, 0.95, rng, 20_000, parts)
    assert balanced.mean == pytest.approx(plain.mean)
    assert (balanced.low, balanced.high) == pytest.approx((plain.low, plain.high), abs=0.03 * (plain.high - plain.low))


def test_image_bootstrap_of_a_balanced_accuracy_covers_the_mean_of_the_classes():
    rng = np.random.default_rng(2)
    parts, gains, covered = [np.arange(400), np.arange(400, 450)], (0.0, 0.2), 0
    for _ in range(200):
        right = np.concatenate(
            [
                rng.choice([0.0, 1.0], len(part), p=(0.5 - gain, 0.5 + gain))
                for part, gain in zip(parts, gains, strict=True)
            ]
        )
        interval = image_bootstrap(np.full(450, 0.5), right, 0.9, rng, 500, parts)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.8 <= covered / 200 <= 0.97


@settings(max_examples=20)
@given(st.integers(1, 10**6), st.floats(0.5, 0.99))
def test_four_times_the_images_resolve_half_the_margin(n_images, confidence):
    assert resolvable_margin(4 * n_images, confidence) == pytest.approx(resolvable_margin(n_images, confidence) / 2)


def test_resolvable_margin_is_the_bootstraps_half_width():
    rng = np.random.default_rng(0)
    rule = np.full(1000, 0.5)
    interval = image_bootstrap(rule, rule + rng.choice([-1, 1], 1000) * IMAGE_DIFFERENCE_SD, 0.95, rng)
    assert (interval.high - interval.low) / 2 == pytest.approx(resolvable_margin(1000, 0.95), rel=0.1)
    with pytest.raises(ValueError, match="0 images"):
        resolvable_margin(0, 0.95)
