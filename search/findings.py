"""What a study says: verdicts with their intervals, the growth ratio that serves best, the weighted objective's best.

A pure projection of the storage; nothing here trains, chooses what to train, or writes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search.alignment import Alignment, alignments
from search.beststage import FiltersInterval, best_filters
from search.cases import Case, Scores, correctness, judge, scores, stored_cases, stored_explorations
from search.confirm import fit_surrogate
from search.cost import Budget, Costs
from search.growth import BestRatio, best_ratios
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.scoring import Parts, blind_score, parts_of
from search.soundness import FidelityCheck, Sensitivity, fidelity_checks, sensitivities
from search.splits import Splits
from search.study import Storage
from search.surrogate import Surrogate, unexplored_probability
from search.verdict import Interval, Verdict, image_bootstrap, mean_interval

COLLAPSE = 0.1
"""How far below its schedule's median a run has collapsed: ten times what the noisiest seeds differ by (a point)."""


@dataclass(frozen=True)
class Confirmed:
    """A confirmed schedule: its mean test accuracy over training seeds with the interval of that mean.

    Attributes:
        schedule: The schedule.
        origin: A rule's name, or `surrogate`.
        costs: What it costs.
        accuracy: Mean with its interval at the study's confidence, not adjusted for looks or challengers; None
            before the second run.
        runs: Runs behind it.
        images: Bootstrap interval over test images of its accuracy minus the rule's, limits as in a comparison: the
            lower one holds for all challengers together, the upper one for this challenger. None for the rule itself.
        collapsed: How many of the runs collapsed (see `collapsed_runs`).
    """

    schedule: FilterSchedule
    origin: str
    costs: Costs
    accuracy: Interval | None
    runs: int
    images: Interval | None
    collapsed: int = 0


@dataclass(frozen=True)
class Finding:
    """One rule under one budget.

    Attributes:
        case: Who was judged against whom.
        verdict: What was decided.
        rule: The rule's schedule.
        challengers: The challengers, in the order of the case.
        unexplored_probability: How likely a schedule that was not confirmed is better than the rule by more than the
            margin, as the surrogate has it; None without a surrogate.
        margin_asked: The margin of terms chosen after looking; None for a verdict as planned.
    """

    case: Case
    verdict: Verdict
    rule: Confirmed
    challengers: tuple[Confirmed, ...]
    unexplored_probability: float | None
    margin_asked: float | None = None

    @property
    def best(self) -> Confirmed:
        """The challenger furthest ahead of the rule in equally many runs; the rule's own schedule where none is."""
        return next((each for each in self.challengers if str(each.schedule) == self.verdict.best), self.rule)


@dataclass(frozen=True)
class BestFilters:
    """The filters of every stage of the best schedule within one budget, by the surrogate."""

    budget: Budget
    stages: tuple[FiltersInterval, ...]


@dataclass(frozen=True)
class WeightedBest:
    """The schedule the weighted objective values most, by the surrogate's estimate of its validation accuracy."""

    schedule: FilterSchedule
    accuracy: float
    accuracy_sd: float
    value: float
    costs: Costs


@dataclass(frozen=True)
class Findings:
    """What a study says.

    Attributes:
        plan: The study worked out.
        findings: One per case.
        rule_of_thumb: One per budget; empty without a surrogate.
        weighted: None without a surrogate.
        explored: Verdicts on terms chosen after looking.
        sensitivities: How cases look at other learning rates, where probed.
        fidelity_checks: How brief training ranks beside full training, where probed.
        best_filters: One per budget; empty without a surrogate.
        alignments: What larger multiples would change; empty without a surrogate.
    """

    @cached_property
    def blind_score(self) -> float | None:
        """What a network that learned nothing may get on the test split; None where a table has no images."""
        config = self.plan.config
        if config.table is not None:
            return None
        data = self.plan.data
        return blind_score(data.labels[Splits(data, config.data).test], config.training.score)

    plan: StudyPlan
    findings: tuple[Finding, ...]
    rule_of_thumb: tuple[BestRatio, ...]
    weighted: WeightedBest | None
    sensitivities: tuple[Sensitivity, ...] = ()
    fidelity_checks: tuple[FidelityCheck, ...] = ()
    explored: tuple[Finding, ...] = ()
    best_filters: tuple[BestFilters, ...] = ()
    alignments: tuple[Alignment, ...] = ()


@dataclass(frozen=True)
class _TestImages:
    """What the confirmation runs made of the test images.

    Attributes:
        correct: See `cases.correctness`.
        parts: See `scoring.parts_of`; None for one part.
    """

    correct: Mapping[FilterSchedule, NDArray[np.float64]]
    parts: Parts | None

    @classmethod
    def of(cls, plan: StudyPlan, storage: Storage) -> Self:
        """All that a study has."""
        parts, score = None, plan.config.training.score
        if score != "accuracy":
            parts = parts_of(plan.data.labels[Splits(plan.data, plan.config.data).test], score)
        return cls(correctness(storage), parts)


def conclude(plan: StudyPlan, storage: Storage) -> Findings:
    """Everything the study says so far; no findings before its cases are fixed."""
    cases = stored_cases(storage) or []
    found, images = scores(storage), _TestImages.of(plan, storage)
    surrogate = fit_surrogate(storage, plan.config.seed)
    findings = tuple(
        _finding(plan, case, found, images, surrogate, case_rng(plan, number)) for number, case in enumerate(cases)
    )
    probed = (
        tuple(sensitivities(plan, storage)),
        tuple(fidelity_checks(plan, storage)),
        tuple(_explored(plan, storage, found, images, surrogate)),
    )
    if surrogate is None:
        return Findings(plan, findings, (), None, *probed)
    rng = np.random.default_rng([plan.config.seed, 2])
    thumb = tuple(best_ratios(plan, surrogate, cases, found, rng))
    weighted = _weighted_best(plan, surrogate, rng)
    filters = tuple(
        BestFilters(budget, best_filters(surrogate, plan.space.within(budget, plan.cost_model, rng), rng))
        for budget in plan.config.budgets
    )
    aligned = tuple(alignments(plan, surrogate, np.random.default_rng([plan.config.seed, 6])))
    return Findings(plan, findings, thumb, weighted, *probed, filters, aligned)


def case_rng(plan: StudyPlan, number: int) -> np.random.Generator:
    """What settles the random choices of the finding on the case of this number."""
    return np.random.default_rng([plan.config.seed, 1, number])


def _finding(
    plan: StudyPlan,
    case: Case,
    found: Scores,
    images: _TestImages,
    surrogate: Surrogate | None,
    rng: np.random.Generator,
) -> Finding:
    confidence = plan.config.confirm.confidence

    def confirmed(schedule: FilterSchedule, origin: str) -> Confirmed:
        runs = found.get(schedule, np.empty(0))
        over_images = None
        if schedule != case.schedule and {schedule, case.schedule} <= images.correct.keys():
            seed = int(rng.integers(2**63))
            over_images = _over_images(images, case.schedule, schedule, confidence, len(case.challengers), seed)
        accuracy = mean_interval(runs, confidence) if len(runs) > 1 else None
        costs = plan.cost_model.costs(schedule)
        return Confirmed(schedule, origin, costs, accuracy, len(runs), over_images, collapsed_runs(runs))

    unexplored = None if surrogate is None else unexplored_in(plan, case, surrogate, rng)
    return Finding(
        case,
        judge(case, found, plan.config.confirm),
        confirmed(case.schedule, str(case.rule)),
        tuple(confirmed(each.schedule, each.origin) for each in case.challengers),
        unexplored,
    )


def _explored(
    plan: StudyPlan,
    storage: Storage,
    found: Scores,
    images: _TestImages,
    surrogate: Surrogate | None,
) -> Iterator[Finding]:
    for number, exploration in enumerate(stored_explorations(storage)):
        terms = replace(plan, config=plan.config.model_copy(update={"confirm": exploration.confirm}))
        for place, case in enumerate(exploration.cases):
            rng = np.random.default_rng([plan.config.seed, 5, number, place])
            finding = _finding(terms, case, found, images, surrogate, rng)
            yield replace(finding, margin_asked=exploration.confirm.margin)


def collapsed_runs(runs: NDArray[np.float64]) -> int:
    """How many runs ended more than 10 points below their schedule's median run, or diverged.

    Measured from the median, which runs that collapse do not move while they are the fewer half. It misleads where
    accuracy spreads over tens of points without any run failing, as after too little training, and where accuracies
    are so low that no run can lie 10 points below another.

    Args:
        runs: Test accuracies of one schedule, shape `(n_runs,)`; 0 for a run that diverged.
    """
    return int(np.sum((runs < np.median(runs) - COLLAPSE) | (runs == 0))) if len(runs) else 0


def _over_images(
    images: _TestImages,
    rule: FilterSchedule,
    challenger: FilterSchedule,
    confidence: float,
    challengers: int,
    seed: int,
) -> Interval:
    """Limits over test images, adjusted as `verdict.decide` adjusts its own over training seeds.

    The lower limit is Bonferroni-adjusted over the challengers, since any one of them suffices for `not near-optimal`;
    the upper one is not, since all must pass for `near-optimal`. Both come from the same resamples.
    """
    resamples = max(4000, 2000 * challengers)  # so that at 95 % some 50 lie beyond the adjusted limit
    adjusted, alone = (
        image_bootstrap(
            images.correct[rule],
            images.correct[challenger],
            level,
            np.random.default_rng(seed),
            resamples,
            images.parts,
        )
        for level in (1 - (1 - confidence) / challengers, confidence)
    )
    return Interval(alone.mean, adjusted.low, alone.high)


def unexplored_in(plan: StudyPlan, case: Case, surrogate: Surrogate, rng: np.random.Generator) -> float:
    """How likely a schedule that was not confirmed beats the rule by more than the margin, under the case's budget."""
    confirmed = [case.schedule, *(each.schedule for each in case.challengers)]
    pool = plan.others(case.budget, confirmed, rng)
    return unexplored_probability(surrogate, pool, case.schedule, plan.config.confirm.margin, rng)


def _weighted_best(plan: StudyPlan, surrogate: Surrogate, rng: np.random.Generator) -> WeightedBest | None:
    """None where parameters or memory of a schedule are not known."""
    if not {"params", "memory"} <= set(plan.objective.reference.known):
        return None
    pool = np.unique(
        np.concatenate([plan.space.within(budget, plan.cost_model, rng) for budget in plan.config.budgets]), axis=0
    )
    mean, sd = surrogate.predict(pool)
    search, reference = plan.config.search, plan.objective.reference
    paid = search.params_weight * np.log2(plan.cost_model.table(pool, "params") / reference["params"])
    paid += search.memory_weight * np.log2(plan.cost_model.table(pool, "memory") / reference["memory"])
    best = int(np.argmax(mean - paid))
    schedule = FilterSchedule(tuple(map(int, pool[best])))
    return WeightedBest(
        schedule, float(mean[best]), float(sd[best]), float((mean - paid)[best]), plan.cost_model.costs(schedule)
    )


def by_budget(findings: Sequence[Finding]) -> dict[Budget, Confirmed]:
    """For each budget that has had its first look, the confirmed schedule with the highest mean."""
    best: dict[Budget, Confirmed] = {}
    for finding in findings:
        if not finding.verdict.runs:
            continue
        known = best.get(finding.case.budget)
        rank = finding.best.accuracy.mean if finding.best.accuracy else -1.0
        if known is None or rank > (known.accuracy.mean if known.accuracy else -1.0):
            best[finding.case.budget] = finding.best
    return best
