"""Is a verdict an artefact of the recipe, or of brief training? Asked of every study once its verdicts are there.

Owns which probes are trained and what is read off them. Probes change no verdict: they say how far to trust it.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState
from scipy.stats import rankdata, ttest_ind

from search.cases import Case, Standing, scores, standings
from search.confirm import runs_per_job
from search.cost import Budget
from search.evaluate import Fidelity
from search.plan import StudyPlan
from search.queues import Probe
from search.schedule import FilterSchedule
from search.study import Storage
from search.verdict import Interval

LEARNING_RATE_FACTORS = (0.5, 2.0)
_RESAMPLES = 2000

Steadiness = Literal["holds", "turns", "open"]


@dataclass(frozen=True)
class AtLearningRate:
    """The rival's mean test accuracy minus the rule's where the recipe's learning rate is multiplied by `factor`.

    Attributes:
        factor: What multiplied it; 1 are the confirmation runs themselves.
        difference: With its Welch interval at the study's confidence, not adjusted for looks or choice.
        runs: Runs of the rule behind it.
    """

    factor: float
    difference: Interval
    runs: int


@dataclass(frozen=True)
class Sensitivity:
    """What a case would look like at other learning rates.

    Attributes:
        case: The case.
        rival: The challenger furthest ahead of the rule, or least behind it.
        at: By rising factor.
        steadiness: `holds` where the interval at every factor is on the verdict's side of the margin, `turns` where
            one lies wholly on the other side, else `open`; None where the case is undecided.
    """

    case: Case
    rival: FilterSchedule
    at: tuple[AtLearningRate, ...]
    steadiness: Steadiness | None


@dataclass(frozen=True)
class FidelityCheck:
    """How brief training ranks schedules of one cost, beside what seeds alone do to ranks.

    Attributes:
        budget: Where the schedules come from.
        schedules: How many were trained.
        runs: Runs of each, for either number of epochs.
        brief_epochs: Epochs of a trial and of a confirmation run.
        full_epochs: Epochs of `filter-search train`.
        between_fidelities: Mean Spearman correlation of a brief run's accuracy with a full run's.
        between_brief: The same between two brief runs of other seeds.
        between_full: The same between two full runs of other seeds.
        shortfall: `between_fidelities` minus the geometric mean of the other two, which it would reach if brief and
            full training agreed on the order; with a bootstrap interval over schedules. A resample repeats schedules,
            which flatters every correlation: on simulated normal scores (noise of half the spread of schedules, 4
            runs, at 95 %) the truth was above the upper limit in at most 0.4 % of cases, but below the lower one in 6
            to 12 % with 12 schedules and in 19 to 26 % with 6. A warning is to be trusted, its absence less so.
    """

    budget: Budget
    schedules: int
    runs: int
    brief_epochs: int
    full_epochs: int
    between_fidelities: float
    between_brief: float
    between_full: float
    shortfall: Interval

    @property
    def misleads(self) -> bool:
        """Whether brief training ranks these schedules otherwise than full training does, beyond doubt."""
        return self.shortfall.high < 0


def probes(plan: StudyPlan, storage: Storage) -> list[Probe]:
    """All probes that the configuration asks for, given how the confirmation ended; a table has none to offer."""
    if plan.config.table is not None:
        return []
    stood = [standing for standing in standings(storage, plan.config.confirm) if standing.verdict.comparisons]
    wanted = [
        probe
        for standing in stood
        for factor in LEARNING_RATE_FACTORS
        for schedule in (standing.case.schedule, rival_of(standing))
        for probe in _in_jobs(plan, schedule, plan.config.soundness.learning_rate_runs, "test", factor=factor)
    ]
    for budget in dict.fromkeys(standing.case.budget for standing in stood):
        for schedule in _sample(plan, [each for each in stood if each.case.budget == budget]):
            runs = plan.config.soundness.fidelity_runs
            wanted += _in_jobs(plan, schedule, runs, "validation")
            wanted += _in_jobs(plan, schedule, runs, "validation", full=True)
    return list(dict.fromkeys(wanted))


def rival_of(standing: Standing) -> FilterSchedule:
    """The challenger furthest ahead of the rule, or least behind it."""
    comparisons = standing.verdict.comparisons
    return FilterSchedule.parse(max(comparisons, key=lambda name: comparisons[name].mean))


def _sample(plan: StudyPlan, stood: Sequence[Standing]) -> list[FilterSchedule]:
    """Schedules of about equal cost: a budget's rules and their rivals, then random shapes that just fit it."""
    wanted = plan.config.soundness.fidelity_schedules
    budget = stood[0].case.budget
    named = [schedule for standing in stood for schedule in (standing.case.schedule, rival_of(standing))]
    chosen = dict.fromkeys(named)
    rng = np.random.default_rng([plan.config.seed, 3])
    for _ in range(20 * wanted):  # a tight budget may have fewer shapes than that
        if len(chosen) >= wanted:
            break
        chosen[plan.space.propose(budget, plan.cost_model, rng)] = None
    return list(chosen)[:wanted]


def _in_jobs(
    plan: StudyPlan,
    schedule: FilterSchedule,
    runs: int,
    split: Literal["validation", "test"],
    *,
    full: bool = False,
    factor: float = 1.0,
) -> Iterator[Probe]:
    """Runs as jobs of at most one pass; those of full training take seeds that brief ones do not."""
    recipe = plan.config.training
    offset, fidelity = (runs, Fidelity.full(recipe)) if full else (0, Fidelity.brief(recipe, factor))
    per_job = max(1, runs_per_job(plan, schedule) * recipe.epochs // fidelity.epochs)
    for first in range(offset, offset + runs, per_job):
        yield Probe(schedule, first, min(per_job, offset + runs - first), split, **asdict(fidelity))


def sensitivities(plan: StudyPlan, storage: Storage) -> list[Sensitivity]:
    """Every case at other learning rates, where either side has at least two runs at each."""
    confirmed, probed = scores(storage), _accuracies(storage)
    found = []
    for standing in standings(storage, plan.config.confirm):
        if not standing.verdict.comparisons:
            continue
        rival, wanted = rival_of(standing), plan.config.soundness.learning_rate_runs
        runs = {1.0: (confirmed.get(standing.case.schedule, _NONE), confirmed.get(rival, _NONE))}
        for factor in LEARNING_RATE_FACTORS:
            key = ("test", Fidelity.brief(plan.config.training, factor))
            runs[factor] = (probed.get((standing.case.schedule, *key), _NONE), probed.get((rival, *key), _NONE))
        if wanted and all(len(arm) >= min(wanted, 2) for pair in runs.values() for arm in pair):
            at = tuple(
                AtLearningRate(factor, difference(*runs[factor], plan.config.confirm.confidence), len(runs[factor][0]))
                for factor in sorted(runs)
            )
            found.append(Sensitivity(standing.case, rival, at, _steadiness(standing, at, plan.config.confirm.margin)))
    return found


def _steadiness(standing: Standing, at: Sequence[AtLearningRate], margin: float) -> Steadiness | None:
    others = [each.difference for each in at if each.factor != 1]
    match standing.verdict.outcome:
        case "undecided":
            return None
        case "near-optimal":
            holds, turns = all(each.high <= margin for each in others), any(each.low > margin for each in others)
        case "not near-optimal":
            holds, turns = all(each.low > margin for each in others), any(each.high <= margin for each in others)
    return "holds" if holds else "turns" if turns else "open"


def difference(rule: NDArray[np.float64], rival: NDArray[np.float64], confidence: float) -> Interval:
    """Mean of the rival's runs minus the rule's, with the interval of Welch (1947, doi:10.2307/2332510).

    Assumes independent runs and means that are about normal. It misleads where a run now and then collapses, and after
    the rival was chosen by these very runs; it is for runs that chose nobody.

    Args:
        rule: Accuracies, shape `(n_runs,)`, at least 2.
        rival: Likewise; the numbers may differ.
        confidence: In (0, 1).
    """
    mean = float(rival.mean() - rule.mean())
    if np.ptp(rule) == 0 and np.ptp(rival) == 0:  # no noise seen: nothing is known of it
        return Interval(mean, -1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one side whose runs agree, which is no fault of theirs
        limits = ttest_ind(rival, rule, equal_var=False).confidence_interval(confidence)
    return Interval(mean, max(-1.0, float(limits.low)), min(1.0, float(limits.high)))


def fidelity_checks(plan: StudyPlan, storage: Storage) -> list[FidelityCheck]:
    """One for each budget of which at least four schedules were trained both ways and have ranks."""
    soundness, training = plan.config.soundness, plan.config.training
    if not soundness.fidelity_schedules:
        return []
    probed, stood = _accuracies(storage), standings(storage, plan.config.confirm)
    found = []
    for number, budget in enumerate(dict.fromkeys(standing.case.budget for standing in stood)):
        mine = [each for each in stood if each.case.budget == budget and each.verdict.comparisons]
        pairs = [
            (probed.get((schedule, "validation", Fidelity.brief(training)), _NONE),
             probed.get((schedule, "validation", Fidelity.full(training)), _NONE))
            for schedule in (_sample(plan, mine) if mine else [])
        ]  # fmt: skip
        complete = [pair for pair in pairs if all(len(arm) == soundness.fidelity_runs for arm in pair)]
        if len(complete) >= 4:
            brief, full = (np.array(arm) for arm in zip(*complete, strict=True))
            rng = np.random.default_rng([plan.config.seed, 4, number])
            found.append(_compare_fidelities(budget, brief, full, plan, rng))
    return [check for check in found if check is not None]


def _compare_fidelities(
    budget: Budget,
    brief: NDArray[np.float64],
    full: NDArray[np.float64],
    plan: StudyPlan,
    rng: np.random.Generator,
) -> FidelityCheck | None:
    """None where ranks do not exist, since all schedules tie in all runs but one of either fidelity."""
    together, within_brief, within_full = rank_correlations(brief, full)
    if not all(map(math.isfinite, (together, within_brief, within_full))):
        return None
    shortfalls = []
    for _ in range(_RESAMPLES):
        rows = rng.integers(len(brief), size=len(brief))
        shortfalls.append(_shortfall(*rank_correlations(brief[rows], full[rows])))
    tail = (1 - plan.config.confirm.confidence) / 2
    low, high = np.nanquantile(shortfalls, [tail, 1 - tail])
    shortfall = Interval(_shortfall(together, within_brief, within_full), float(low), float(high))
    (schedules, runs), training = brief.shape, plan.config.training
    epochs = training.epochs, training.full_epochs
    return FidelityCheck(budget, schedules, runs, *epochs, together, within_brief, within_full, shortfall)


def rank_correlations(brief: NDArray[np.float64], full: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean Spearman correlations between single runs: of brief with full, of two brief ones, of two full ones.

    Assumes that runs of a schedule are exchangeable. It misleads with few schedules, and where all are about equally
    good: then ranks are noise at any fidelity and all three are near 0.

    Args:
        brief: Accuracies, shape `(n_schedules, n_runs)`, at least two of both.
        full: Likewise; the seeds are other ones.

    Returns:
        Over the pairs of runs in which schedules do not all tie; NaN where there is no such pair.
    """
    runs = brief.shape[1]
    ranks = rankdata(np.concatenate([brief, full], axis=1), axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    with np.errstate(invalid="ignore"):  # a run in which all schedules tie has no ranks
        correlation = (ranks.T @ ranks) / np.outer(length, length)
    apart = np.triu_indices(runs, 1)
    return (
        _known_mean(correlation[:runs, runs:]),
        _known_mean(correlation[:runs, :runs][apart]),
        _known_mean(correlation[runs:, runs:][apart]),
    )


def _known_mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _shortfall(together: float, within_brief: float, within_full: float) -> float:
    return together - math.sqrt(max(0.0, within_brief) * max(0.0, within_full))


_NONE = np.empty(0)


def _accuracies(storage: Storage) -> Mapping[tuple[FilterSchedule, str, Fidelity], NDArray[np.float64]]:
    """Accuracies of the probes carried out, by schedule, split and fidelity; a run that diverged has 0."""
    found: dict[tuple[FilterSchedule, str, Fidelity], list[float]] = {}
    for job in storage.trials("probe", TrialState.COMPLETE):
        probe = Probe.of(job)
        key = (probe.schedule, probe.split, probe.fidelity)
        found.setdefault(key, []).extend(run.get("accuracy", 0.0) for run in job.user_attrs["runs"])
    return {key: np.array(values) for key, values in found.items()}
