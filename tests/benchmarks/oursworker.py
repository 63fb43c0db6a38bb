"""What a worker of side (d) does: all seeds of a schedule in one pass where `search.fusing` finds that faster."""

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.runs import images_of, splits_of
from benchmarks.work import Trained, Work

from search import fusing
from search.device import choose_device
from search.evaluate import Fidelity
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule
from search.training import TrainingEvaluator

if TYPE_CHECKING:
    from benchmarks.ours import Pass


def train_pass(one: "Pass") -> list[Trained]:
    """The jobs of one schedule, carried out."""
    work, jobs, together = one
    evaluate = _evaluator(work)
    evaluate.together = lambda _: together
    began = time.perf_counter()
    runs = evaluate(jobs[0].schedule, [job.seed for job in jobs], Fidelity.brief(work.recipe), "test")
    seconds = (time.perf_counter() - began) / len(jobs)
    return [Trained(job, run.accuracy, seconds) for job, run in zip(jobs, runs, strict=True)]


def count_together(sizes: Sequence[FilterSchedule], work: Work) -> int:
    """See `search.fusing`."""
    return fusing.count_together(sizes, _evaluator(work))


@functools.cache
def _evaluator(work: Work) -> TrainingEvaluator:
    return TrainingEvaluator(NetworkConfig(), work.recipe, images_of(work), splits_of(work), choose_device("auto"))
