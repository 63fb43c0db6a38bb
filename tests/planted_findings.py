"""A planted study and what it found, made by hand in milliseconds: for what reads findings and not what makes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from search import study
from search.cases import Case, Challenger, judge
from search.config import StudyConfig
from search.cost import Budget, CostName, Costs
from search.data import ImageData
from search.findings import Confirmed, Finding, Findings, WeightedBest
from search.growth import AtRatio, BestRatio, ConfirmedRatio, ratio_members
from search.plan import StudyPlan
from search.rules import fit
from search.schedule import FilterSchedule
from search.soundness import AtLearningRate, FidelityCheck, Sensitivity, Steadiness
from search.space import Space
from search.surrogate import RatioInterval
from search.verdict import Interval, mean_interval


class PlantedCosts:
    """A cost model with the shape of a real one: a three-stage network on 8x8 images."""

    def costs(self, schedule: FilterSchedule) -> Costs:
        a, b, c = schedule.filters
        activations = 64 * a + 16 * b + 4 * c
        params = 9 * (a + a * b + b * c) + 12 * c + 4
        return Costs(params, 9 * (64 * a + 16 * a * b + 4 * b * c) + 4 * c, activations, 900 * activations)

    def table(self, filters: np.ndarray, cost: CostName) -> np.ndarray:
        return np.array([self.costs(FilterSchedule(tuple(map(int, row))))[cost] for row in filters], np.int64)


@dataclass(frozen=True)
class PlantedChallenger:
    """A challenger and its mean gain over the rule."""

    schedule: str
    origin: str
    gain: float


def make_plan(**values: object) -> StudyPlan:
    config = StudyConfig.model_validate(
        {"name": "planted", "budgets": ("params <= 1500", "macs <= 40000", "activations <= 500")} | values
    )
    images = np.random.default_rng(0).integers(0, 17, (400, 1, 8, 8), dtype=np.uint8)
    data = ImageData(images, np.arange(400, dtype=np.int64) % 4, 4, "noise")
    space, costs = Space.of(config.filters), PlantedCosts()

    def fitted(rules):
        found = [fit(rule, budget, costs, 3, 1) for rule in rules for budget in config.budgets]
        return tuple(each for each in found if each is not None)

    return StudyPlan(config, data, space, costs, fitted(config.rules.judged), fitted(config.rules.compared))


def make_finding(plan: StudyPlan, place: int, runs: int, challengers: list[PlantedChallenger]) -> Finding:
    """The case of the judged rule at `place` with its scores drawn around 0.96 and the planted gains."""
    judged, confirm = plan.judged[place], plan.config.confirm
    rng = np.random.default_rng(place)
    case = Case(
        judged.budget,
        judged.rule,
        judged.schedule,
        tuple(Challenger(FilterSchedule.parse(each.schedule), each.origin) for each in challengers),
    )

    def scores(gain: float) -> np.ndarray:
        if not runs:
            return np.empty(0)
        drawn = rng.normal(size=runs)
        return 0.96 + gain + 0.004 * (drawn - drawn.mean()) / drawn.std()  # so that their mean is the planted one

    found = {judged.schedule: scores(0.0)}
    for each in challengers:
        found[FilterSchedule.parse(each.schedule)] = scores(each.gain)

    def confirmed(schedule: FilterSchedule, origin: str, images: Interval | None) -> Confirmed:
        interval = mean_interval(found[schedule], confirm.confidence) if runs else None
        return Confirmed(schedule, origin, plan.cost_model.costs(schedule), interval, runs, images)

    return Finding(
        case,
        judge(case, found, confirm),
        confirmed(judged.schedule, str(judged.rule), None),
        tuple(
            confirmed(
                FilterSchedule.parse(each.schedule),
                each.origin,
                Interval(each.gain, each.gain - 0.004, each.gain + 0.004) if runs else None,
            )
            for each in challengers
        ),
        0.12,
    )


def make_findings(plan: StudyPlan) -> Findings:
    """One verdict of each kind: far worse, as good, and too close to the margin to call."""
    worse = [PlantedChallenger("8-8-8", "uniform", 0.02), PlantedChallenger("6-8-11", "surrogate", 0.01)]
    as_good = [PlantedChallenger("9-9-9", "uniform", -0.003), PlantedChallenger("7-9-12", "surrogate", 0.0)]
    close = [PlantedChallenger("4-6-9", "geometric(1.5)", 0.0046), PlantedChallenger("5-5-5", "uniform", -0.09)]
    found = (make_finding(plan, 0, 16, worse), make_finding(plan, 1, 32, as_good), make_finding(plan, 2, 128, close))
    thumb = tuple(
        BestRatio(budget, RatioInterval(*limits), curve=make_curve(plan, budget, limits[0]))
        for budget, limits in zip(
            plan.config.budgets, ((1.19, 0.84, 1.68), (1.54, 1.0, 2.18), (2.0, 1.41, 2.83)), strict=True
        )
    )
    schedule = FilterSchedule((6, 8, 9))
    weighted = WeightedBest(schedule, 0.961, 0.004, 0.958, plan.cost_model.costs(schedule))
    uniform = ConfirmedRatio(
        1.0, FilterSchedule((8, 8, 8)), Interval(0.98, 0.979, 0.981), 16, Interval(0.02, 0.018, 0.022)
    )
    thumb = (replace(thumb[0], confirmed=(uniform,)), *thumb[1:])
    return Findings(plan, found, thumb, weighted, make_sensitivities(found), make_fidelity_checks(plan))


def make_curve(plan: StudyPlan, budget: Budget, best: float) -> tuple[AtRatio, ...]:
    """Accuracy falls by a point for every octave, squared, away from the best ratio."""

    def gain(ratio: float) -> float:
        return 0.01 * (np.log2(2 / best) ** 2 - np.log2(ratio / best) ** 2)

    ratios, filters = ratio_members(plan, budget)
    return tuple(
        AtRatio(
            float(ratio),
            FilterSchedule(tuple(map(int, row))),
            0.96 + gain(ratio),
            0.004,
            Interval(gain(ratio), gain(ratio) - 0.008, gain(ratio) + 0.008),
        )
        for ratio, row in zip(ratios, filters, strict=True)
    )


def make_sensitivities(findings: Sequence[Finding]) -> tuple[Sensitivity, ...]:
    """A verdict that turns at double the learning rate, one that holds, and one there was none to turn of."""
    lows = ((0.01, 0.012, -0.001), (-0.008, -0.006, -0.009), (-0.002, 0.001, -0.004))
    said: tuple[Steadiness | None, ...] = ("turns", "holds", None)
    return tuple(
        Sensitivity(
            finding.case,
            FilterSchedule.parse(max(finding.verdict.comparisons)),
            tuple(
                AtLearningRate(factor, Interval(low + 0.0025, low, low + 0.005), 16)
                for factor, low in zip((0.5, 1.0, 2.0), limits, strict=True)
            ),
            steadiness,
        )
        for finding, limits, steadiness in zip(findings, lows, said, strict=True)
    )


def make_fidelity_checks(plan: StudyPlan) -> tuple[FidelityCheck, ...]:
    """One budget where brief training misleads, a fair one, and one of too few schedules."""
    limits = ((-0.6, -0.9, -0.2), (0.0, -0.1, 0.1), (-0.1, -0.5, 0.2))
    return tuple(
        FidelityCheck(budget, 12, 4, 15, 60, 0.8 + shortfall[0], 0.8, 0.8, Interval(*shortfall))
        for budget, shortfall in zip(plan.config.budgets, limits, strict=True)
    )


def make_storage(plan: StudyPlan, folder: Path) -> study.Storage:
    """A storage with a complete trial for every rule, a failed one and some sampled ones."""
    storage = study.create(folder, plan.config, ["maximize"], plan.data.fingerprint)
    rng = np.random.default_rng(3)
    sampled = [FilterSchedule(tuple(map(int, rng.integers(2, 12, 3)))) for _ in range(8)]
    origins = [(str(each.rule), each.schedule, each.budget) for each in plan.anchors]
    for origin, schedule, budget in [*origins, *(("band", each, Budget("params", 1500)) for each in sampled)]:
        runs = [{"seed": n, "accuracy": float(rng.uniform(0.8, 1.0)), "loss": 0.1, "epochs": 15} for n in range(2)]
        _add(storage, origin, schedule, budget, plan.cost_model.costs(schedule), runs, TrialState.COMPLETE)
    failed = FilterSchedule((2, 2, 2))
    _add(storage, "band", failed, Budget("params", 1500), plan.cost_model.costs(failed), [], TrialState.FAIL)
    return storage


def _add(storage, origin, schedule, budget, costs, runs, state):
    attrs = {
        "proposal": len(storage.trials("search")),
        "origin": origin,
        "budget": str(budget),
        "schedule": str(schedule),
        "costs": {
            "params": costs.params,
            "macs": costs.macs,
            "activations": costs.activations,
            "memory": costs.memory,
        },
        "runs": runs,
        "reason": "diverged" if state is TrialState.FAIL else None,
    }
    value = float(np.mean([run["accuracy"] for run in runs])) if runs else None
    storage.search.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=attrs))
