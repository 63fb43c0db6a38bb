"""Side (d): the product's own training, in as many processes as it starts and forked as it forks them.

All seeds of a schedule train in one pass where `search.fusing` finds that faster.
"""

import functools
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from multiprocessing.pool import Pool

import torch
from benchmarks.runs import images_of, splits_of
from benchmarks.work import BANDS, Job, Trained, Work

from search import fusing
from search.device import choose_device
from search.evaluate import Fidelity
from search.launch import ENVIRONMENT, ONE_THREAD
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule
from search.training import TrainingEvaluator

Pass = tuple[Work, list[Job], bool]
"""The jobs of one schedule, and whether its seeds train together."""


def train(work: Work, jobs: Sequence[Job]) -> list[Trained]:
    """The seeds of a schedule are given to whichever worker is free."""
    together = _trained_together(replace(work, recipe=work.recipe.model_copy(update={"epochs": 1})))  # for any epochs
    own = [(schedule, list(group)) for schedule, group in groupby(jobs, key=lambda job: job.schedule)]
    passes = [(work, group, schedule in together) for schedule, group in own]
    return [trained for runs in _workers().imap(train_pass, passes) for trained in runs]


@functools.cache
def _workers() -> Pool:
    """Started once, with a thread each: one per core, one on a GPU."""
    os.environ |= ENVIRONMENT | ONE_THREAD
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload([__name__])
    count = 1 if torch.cuda.is_available() else os.cpu_count()
    return forked.Pool(count, torch.set_num_threads, (1,))


def train_pass(one: Pass) -> list[Trained]:
    work, jobs, together = one
    evaluate = _evaluator(work)
    evaluate.together = lambda _: together
    began = time.perf_counter()
    runs = evaluate(jobs[0].schedule, [job.seed for job in jobs], Fidelity.brief(work.recipe), "test")
    seconds = (time.perf_counter() - began) / len(jobs)
    return [Trained(job, run.accuracy, seconds) for job, run in zip(jobs, runs, strict=True)]


@functools.cache
def _evaluator(work: Work) -> TrainingEvaluator:
    return TrainingEvaluator(NetworkConfig(), work.recipe, images_of(work), splits_of(work), choose_device("auto"))


@functools.cache
def _trained_together(work: Work) -> frozenset[FilterSchedule]:
    """The schedules that replicas train together for; measured once a data set, as the product does."""
    torch.set_num_threads(1)  # as in a worker
    sizes = [FilterSchedule.parse(text) for band in BANDS.values() for text in reversed(band.split())]
    return frozenset(sizes[: fusing.count_together(sizes, _evaluator(work))])
