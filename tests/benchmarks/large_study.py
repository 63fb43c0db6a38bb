"""Makes a study of thousands of trials out of a finished one, to measure what looks at studies.

    python -m benchmarks.large_study studies/planted 5000

adds trials of random schedules to the search, each scored by the study's own table; run it from `tests/`.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search import configfile
from search.config import StudyConfig
from search.cost import Budget
from search.evaluate import Fidelity, Scored
from search.plan import StudyPlan, make_plan
from search.runrecord import record
from search.schedule import FilterSchedule
from search.study import load
from search.worker import make_evaluator


def enlarge(folder: Path, trials: int) -> None:
    """Add trials to a study in place until it has as many as asked for."""
    config = configfile.read(folder / "config.yaml")
    plan, storage = make_plan(config), load(folder, config.name)
    known = len(storage.trials("search"))
    larger = _with_trials(config, trials)
    configfile.write(larger, folder / "config.yaml")
    storage.search.set_user_attr("config", larger.semantic())
    storage.search.set_user_attr("fingerprint", larger.fingerprint())
    added = finished_trials(plan, known, trials)
    storage.store.add(storage.store.get_study_id_from_name(config.name), added)


def finished_trials(plan: StudyPlan, first: int, end: int) -> list[FrozenTrial]:
    """Trials of random schedules, proposals `first` to `end - 1`."""
    rng = np.random.default_rng(plan.config.seed)
    pools = {budget: plan.space.within(budget, plan.cost_model, rng) for budget in plan.config.budgets}
    return [_trial(plan, number, pools, rng) for number in range(first, end)]


def _with_trials(config: StudyConfig, trials: int) -> StudyConfig:
    return config.model_copy(update={"search": config.search.model_copy(update={"trials": trials})})


def _trial(
    plan: StudyPlan, number: int, pools: Mapping[Budget, NDArray[np.int64]], rng: np.random.Generator
) -> FrozenTrial:
    budget = plan.config.budgets[number % len(plan.config.budgets)]
    pool = pools[budget]
    schedule = FilterSchedule(tuple(int(f) for f in pool[rng.integers(len(pool))]))
    costs = plan.cost_model.costs(schedule)
    count = plan.config.search.seeds_per_trial
    seeds = plan.seeds("search", schedule, number * count, count)
    runs = make_evaluator(plan)(schedule, seeds, Fidelity.brief(plan.config.training), "validation")
    accuracy = float(np.mean([run.accuracy for run in runs if isinstance(run, Scored)]))
    (value,) = plan.objective.values(accuracy, costs)
    begun = datetime(2026, 1, 1) + timedelta(seconds=number)
    trial = create_trial(
        state=TrialState.COMPLETE,
        value=value,
        params=plan.space.params(schedule),
        distributions={
            name: IntDistribution(s.low, s.high, log=s.scale == "log") for name, s in plan.space.dimensions()
        },
        user_attrs={
            "proposal": number,
            "origin": plan.config.search.sampler,
            "budget": str(budget),
            "costs": asdict(costs),
            "schedule": str(schedule),
            "runs": [record(run) for run in runs],
            "owner": 0,
            "attempts": 1,
        },
    )
    trial.datetime_start, trial.datetime_complete = begun, begun + timedelta(seconds=1)
    return trial


if __name__ == "__main__":
    enlarge(Path(sys.argv[1]), int(sys.argv[2]))
