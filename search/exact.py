"""What a table says when all of it is looked at: exact verdicts and growth ratios, without runs, noise or a model.

Reads the plan alone. What it finds has the form of `findings`, so that records, report and terminal show both alike.
"""

from collections.abc import Iterator

import numpy as np

from search.cases import Case, Challenger, Standing
from search.cost import Budget
from search.findings import Confirmed, Finding, Findings
from search.growth import AtRatio, BestRatio, doubling, ratio_members
from search.plan import StudyPlan
from search.rules import Fit
from search.schedule import FilterSchedule
from search.surrogate import RatioInterval
from search.table import TableEvaluator, Truth
from search.verdict import Comparison, Interval, Outcome, Verdict

_DECIMALS = 12  # of a fraction: far below one image of any test split, above the rounding of means
_SAME_ACCURACY = 10.0**-_DECIMALS


def exact_findings(plan: StudyPlan) -> Findings:
    """Every rule against every schedule within its budget, at their known accuracies.

    An accuracy known is its own interval. Where a table's accuracies are means of few noisy runs, the best of many is
    partly luck (the winner's curse): the regret is exact about the table and too large about the networks behind it.

    Args:
        plan: Of a study whose table is exhaustive.
    """
    assert isinstance(plan.source, TableEvaluator)  # only a table can be
    truth = plan.source.truth
    best = {budget: _best(plan, truth, budget) for budget in plan.config.budgets}
    findings = tuple(_finding(plan, truth, fitted, best[fitted.budget]) for fitted in plan.judged)
    return Findings(plan, findings, tuple(_best_ratios(plan, truth)), None)


def exact_standings(findings: Findings) -> list[Standing]:
    """The same findings as the terminal shows them."""
    return [
        Standing(each.case, each.verdict, _mean(each.rule), each.best.schedule, _mean(each.best))
        for each in findings.findings
    ]


def _mean(confirmed: Confirmed) -> float | None:
    return None if confirmed.accuracy is None else confirmed.accuracy.mean


def _accuracy(truth: Truth, schedule: FilterSchedule) -> float:
    return float(truth.accuracies(np.array([schedule.filters], np.int64))[0])


def _best(plan: StudyPlan, truth: Truth, budget: Budget) -> FilterSchedule:
    """The most accurate schedule of the space within a budget; of equals the first in lexicographic order."""
    pool = plan.space.within(budget, plan.cost_model, np.random.default_rng(0))  # enumerated: nothing is drawn
    accuracies = truth.accuracies(pool)
    first = int(np.argmax(accuracies >= accuracies.max() - _SAME_ACCURACY))
    return FilterSchedule(tuple(pool[first].tolist()))


def _finding(plan: StudyPlan, truth: Truth, fitted: Fit, best: FilterSchedule) -> Finding:
    """One rule against the best schedule within the budget and every other rule's member."""
    challengers = [Challenger(best, "table")] if best != fitted.schedule else []
    challengers += [
        Challenger(other.schedule, str(other.rule))
        for other in plan.anchors
        if other.budget == fitted.budget and other.schedule not in (fitted.schedule, best)
    ]
    case = Case(fitted.budget, fitted.rule, fitted.schedule, tuple(challengers))

    def known(schedule: FilterSchedule, origin: str) -> Confirmed:
        accuracy = _accuracy(truth, schedule)
        interval = Interval(accuracy, accuracy, accuracy)
        return Confirmed(schedule, origin, plan.cost_model.costs(schedule), interval, 1, None)

    return Finding(
        case,
        _verdict(truth, case, plan.config.confirm.margin),
        known(fitted.schedule, str(fitted.rule)),
        tuple(known(each.schedule, each.origin) for each in challengers),
        0.0,
    )


def _verdict(truth: Truth, case: Case, margin: float) -> Verdict:
    rule = _accuracy(truth, case.schedule)
    gains = {  # rounded, lest 0.9235 - 0.9185 be more than a margin of 0.005
        str(each.schedule): round(_accuracy(truth, each.schedule) - rule, _DECIMALS) for each in case.challengers
    }
    regret = max([0.0, *gains.values()])
    outcome: Outcome = "not near-optimal" if regret > margin else "near-optimal"
    return Verdict(
        outcome,
        runs=1,
        regret=Interval(regret, regret, regret),
        comparisons={
            name: Comparison(gain, gain, gain, runs=1, settled=gain <= margin) for name, gain in sorted(gains.items())
        },
        best=max(gains, key=gains.__getitem__) if regret > 0 else None,
        unsettled=tuple(sorted(name for name, gain in gains.items() if gain > margin)),
        next_look=None,
        runs_to_decide=None,
        chance_per_run=None,
    )


def _best_ratios(plan: StudyPlan, truth: Truth) -> Iterator[BestRatio]:
    """Per budget the ratios whose fitted schedules are most accurate: the middle one, the least and the greatest."""
    for budget in plan.config.budgets:
        ratios, filters = ratio_members(plan, budget)
        if len(ratios) > 1:
            accuracies = truth.accuracies(filters)
            best = ratios[accuracies >= accuracies.max() - _SAME_ACCURACY]
            middle = float(best[(len(best) - 1) // 2])
            interval, reference = RatioInterval(middle, float(best.min()), float(best.max())), doubling(plan, budget)
            curve = tuple(
                _known(float(ratio), FilterSchedule(tuple(row.tolist())), float(accuracy), truth, reference)
                for ratio, row, accuracy in zip(ratios, filters, accuracies, strict=True)
            )
            yield BestRatio(budget, interval, exact=True, curve=curve)


def _known(
    ratio: float, schedule: FilterSchedule, accuracy: float, truth: Truth, reference: FilterSchedule | None
) -> AtRatio:
    if reference is None:
        return AtRatio(ratio, schedule, accuracy, 0.0, None)
    gain = round(accuracy - _accuracy(truth, reference), _DECIMALS)
    return AtRatio(ratio, schedule, accuracy, 0.0, Interval(gain, gain, gain))
