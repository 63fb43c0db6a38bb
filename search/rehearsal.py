"""Whole studies on planted truths, in memory: everything of a study but its processes and its files, beside the truth.

Owns how one is conducted and what came of it. Sampler, surrogate, cases, looks and verdicts are those of every study;
the storage is Optuna's, in memory, since writing to SQLite would take most of the time.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search import queues, study
from search.cases import Case, Scores, judge, scores, store_cases
from search.confirm import choose_cases, enqueue_next, fit_surrogate
from search.cost import Budget
from search.evaluate import Evaluate
from search.findings import case_rng, unexplored_in
from search.plan import StudyPlan
from search.samplers import make_sampler
from search.schedule import FilterSchedule
from search.study import Storage
from search.surrogate import Surrogate
from search.table import TableEvaluator
from search.verdict import Outcome, Verdict
from search.worker import carry_out_next, make_evaluator


@dataclass(frozen=True)
class Truth:
    """What is known of the schedules within one budget.

    Attributes:
        budget: The budget.
        source: Knows every schedule's accuracy.
        pool: Every schedule of the space within the budget, shape `(n_schedules, n_stages)`.
    """

    budget: Budget
    source: TableEvaluator
    pool: NDArray[np.int64]

    @classmethod
    def of(cls, plan: StudyPlan, budget: Budget) -> "Truth":
        """The truth under one budget of a study on a planted surface or a table."""
        assert isinstance(plan.source, TableEvaluator)  # only of these is the truth known
        return cls(budget, plan.source, plan.space.within(budget, plan.cost_model, np.random.default_rng(0)))

    @cached_property
    def best(self) -> float:
        """The highest accuracy within the budget, a fraction."""
        return float(self.source.truth.accuracies(self.pool).max())

    def shortfall(self, *schedules: FilterSchedule) -> float:
        """What the best of these schedules lacks to the best within the budget, a fraction."""
        filters = np.array([schedule.filters for schedule in schedules], np.int64)
        return self.best - float(self.source.truth.accuracies(filters).max())


@dataclass(frozen=True)
class Rehearsed:
    """One verdict of a rehearsed study beside the truth; regrets and shortfalls are true ones, fractions.

    Attributes:
        case: Who was judged against whom.
        verdict: What was decided.
        regret: What the rule lacks to the best schedule within the budget.
        confirmed_regret: What it lacks to the best of its challengers, not below 0: what the verdict is about.
        published_shortfall: What the schedule published as best lacks to the best within the budget.
        confirmed_shortfall: The least that the rule or a challenger lacks to it.
        runs: Confirmation runs of the rule and its challengers together.
        unexplored: The published probability that a schedule not confirmed beats the rule by more than the margin;
            worked out for `near-optimal` alone, which it qualifies, else None.
    """

    case: Case
    verdict: Verdict
    regret: float
    confirmed_regret: float
    published_shortfall: float
    confirmed_shortfall: float
    runs: int
    unexplored: float | None

    def wrong(self, margin: float) -> bool:
        """Whether the verdict is wrong of what it is about: the rule against its confirmed challengers."""
        return _wrong(self.verdict.outcome, self.confirmed_regret, margin)

    def wrong_of_space(self, margin: float) -> bool:
        """Whether the verdict is wrong when read of the rule against every schedule within the budget."""
        return _wrong(self.verdict.outcome, self.regret, margin)


def _wrong(outcome: Outcome, regret: float, margin: float) -> bool:
    match outcome:
        case "near-optimal":
            return regret > margin
        case "not near-optimal":
            return regret <= margin
        case "undecided":
            return False


def conduct(plan: StudyPlan) -> tuple[Storage, list[Case], Surrogate | None]:
    """A study's search and confirmation from first to last job, in memory and in this process."""
    config, evaluate = plan.config, make_evaluator(plan)
    sampler = make_sampler(config.search, plan.space, plan.cost_model, config.seed)
    storage = study.create_in_memory(config, plan.objective.directions, sampler)
    queues.enqueue_missing(storage, plan.proposals())
    _carry_out_all(plan, evaluate, storage)
    surrogate = fit_surrogate(storage, config.seed)
    cases = choose_cases(plan, surrogate)
    store_cases(storage, cases)
    while enqueue_next(storage, cases, plan):
        _carry_out_all(plan, evaluate, storage)
    return storage, cases, surrogate


def _carry_out_all(plan: StudyPlan, evaluate: Evaluate, storage: Storage) -> None:
    while carry_out_next(plan, evaluate, storage):
        pass


def rehearse(plan: StudyPlan, seed: int, truths: dict[Budget, Truth]) -> list[Rehearsed]:
    """Conduct a study and hold every verdict of it against the truth.

    Args:
        plan: The study, on a planted surface.
        seed: What to put in place of its seed.
        truths: By budget; every budget of the study.
    """
    plan = replace(plan, config=plan.config.model_copy(update={"seed": seed}))
    storage, cases, surrogate = conduct(plan)
    found = scores(storage)
    return [_rehearsed(plan, number, case, found, surrogate, truths[case.budget]) for number, case in enumerate(cases)]


def _rehearsed(
    plan: StudyPlan, number: int, case: Case, found: Scores, surrogate: Surrogate | None, truth: Truth
) -> Rehearsed:
    verdict = judge(case, found, plan.config.confirm)
    challengers = [each.schedule for each in case.challengers]
    regret = truth.shortfall(case.schedule)
    unexplored = None
    if verdict.outcome == "near-optimal" and surrogate is not None:
        unexplored = unexplored_in(plan, case, surrogate, case_rng(plan, number))
    return Rehearsed(
        case,
        verdict,
        regret,
        max(0.0, regret - truth.shortfall(*challengers)),
        truth.shortfall(FilterSchedule.parse(verdict.best) if verdict.best else case.schedule),
        truth.shortfall(case.schedule, *challengers),
        verdict.runs + sum(each.runs for each in verdict.comparisons.values()),
        unexplored,
    )
