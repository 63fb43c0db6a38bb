"""A planted truth in training's place: accuracy as a closed form of the schedule, plus noise settled by the seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from search import queues, study
from search.config import StudyConfig
from search.coordinate import Launch, Stop
from search.evaluate import Failed, Fidelity, OnEpoch, Run, Scored, Split
from search.plan import StudyPlan, make_plan
from search.schedule import FilterSchedule
from search.study import Storage
from search.worker import carry_out_next, make_evaluator, open_study

Surface = Callable[[FilterSchedule], float]
TEST_IMAGES = 500


def peaked(best_ratio: float, drop: float) -> Surface:
    """Accuracy rises with size and falls by `drop` per squared octave that a stage ratio is off `best_ratio`."""

    def accuracy(schedule: FilterSchedule) -> float:
        size = np.mean(np.log2(schedule.filters))
        off = np.log2(schedule.ratios) - np.log2(best_ratio)
        return float(np.clip(0.80 + 0.02 * size - drop * np.sum(off**2), 0.05, 0.99))

    return accuracy


@dataclass
class Planted:
    """An `Evaluate` that trains nothing and remembers what it was asked."""

    surface: Surface
    noise: float = 0.004
    asked: list[tuple[FilterSchedule, tuple[int, ...], Split]] = field(default_factory=list)

    def __call__(
        self,
        schedule: FilterSchedule,
        seeds: Sequence[int],
        fidelity: Fidelity,
        score_on: Split,
        on_epoch: OnEpoch | None = None,
        keep_weights: bool = False,
    ) -> list[Run]:
        self.asked.append((schedule, tuple(seeds), score_on))
        epochs = fidelity.epochs
        if on_epoch is not None:
            epochs = next(
                (n for n in range(1, epochs + 1) if on_epoch(n, self.surface(schedule) * n / epochs)), epochs
            )
        return [self._run(schedule, seed, epochs) for seed in seeds]

    def _run(self, schedule: FilterSchedule, seed: int, epochs: int) -> Scored:
        rng = np.random.default_rng(seed)
        accuracy = float(np.clip(self.surface(schedule) + self.noise * rng.standard_normal(), 0, 1))
        correct = rng.random(TEST_IMAGES) < accuracy
        return Scored(seed, accuracy, 1 - accuracy, correct, epochs, 0.001)


@dataclass
class Failing:
    """An `Evaluate` whose every run fails for a reason of its own."""

    reason: str

    def __call__(self, schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False) -> list[Run]:
        return [Failed(seed, self.reason, f"{schedule} {self.reason}", 0.001) for seed in seeds]


@dataclass
class InlineWorkers:
    """Workers that work in the coordinator's own process, a job whenever they are looked after."""

    plan: StudyPlan
    evaluate: object
    storage: Storage

    def tend(self, storage: Storage) -> None:
        carry_out_next(self.plan, self.evaluate, self.storage)

    def end_overdue(self, storage: Storage) -> None: ...

    def drain(self) -> None: ...

    def kill(self) -> None: ...

    def running(self) -> int:
        return 0


def conduct(folder, evaluate=None, seed=0, **changes):
    """A study from search to confirmation in this process; its networks are trained unless something evaluates."""
    config = StudyConfig.model_validate(
        {
            "seed": seed,
            "budgets": ["params <= 1500", "activations <= 500"],
            "search": {"trials": 40, "seeds_per_trial": 2},
            "confirm": {"looks": [8, 16, 32]},
        }
        | changes
    )
    plan = make_plan(config)
    folder.mkdir(exist_ok=True)
    study.create(folder, config, plan.objective.directions, plan.data.fingerprint)
    storage = open_study(plan, folder)
    queues.enqueue_missing(storage, plan.proposals())
    launch = Launch(
        plan, storage, InlineWorkers(plan, evaluate or make_evaluator(plan), storage), Stop(None), lambda _: None
    )
    assert launch.search()
    launch.confirm()
    return plan, storage
