"""Side (d): the product's own training, in as many processes as it starts and forked as it forks them.

This process holds what the product's coordinator does; those that train are in `oursworker`.
"""

import functools
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from multiprocessing.pool import Pool

from benchmarks.work import BANDS, Job, Trained, Work

import search.livedisplay
import search.run  # noqa: F401 # both for the memory they take
from search.apart import Apart
from search.config import ComputeConfig
from search.device import count_workers
from search.launch import ENVIRONMENT, ONE_THREAD
from search.schedule import FilterSchedule

Pass = tuple[Work, list[Job], bool]
"""The jobs of one schedule, and whether its seeds train together."""


def train(work: Work, jobs: Sequence[Job]) -> list[Trained]:
    """The seeds of a schedule are given to whichever worker is free."""
    count = _worker_count()  # before anything is forked, as in the product
    together = _trained_together(replace(work, recipe=work.recipe.model_copy(update={"epochs": 1})))  # for any epochs
    own = [(schedule, list(group)) for schedule, group in groupby(jobs, key=lambda job: job.schedule)]
    passes = [(work, group, schedule in together) for schedule, group in own]
    return [trained for runs in _workers(count).imap(_train_pass, passes) for trained in runs]


@functools.cache
def _worker_count() -> int:
    with Apart() as apart:
        return apart(count_workers, ComputeConfig())


@functools.cache
def _workers(count: int) -> Pool:
    """Started once."""
    return _forked(count)


def _forked(count: int) -> Pool:
    """Processes with a thread each, forked by one that has imported what they need."""
    os.environ |= ENVIRONMENT | ONE_THREAD
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["benchmarks.oursworker"])
    return forked.Pool(count, _use_one_thread)


def _use_one_thread() -> None:
    import torch  # there already

    torch.set_num_threads(1)


@functools.cache
def _trained_together(work: Work) -> frozenset[FilterSchedule]:
    """The schedules that replicas train together for; measured once a data set, in a process of its own."""
    sizes = [FilterSchedule.parse(text) for band in BANDS.values() for text in reversed(band.split())]
    with _forked(1) as alone:
        return frozenset(sizes[: alone.apply(_count_together, (sizes, work))])


def _train_pass(one: Pass) -> list[Trained]:
    from benchmarks import oursworker  # there already

    return oursworker.train_pass(one)


def _count_together(sizes: Sequence[FilterSchedule], work: Work) -> int:
    from benchmarks import oursworker

    return oursworker.count_together(sizes, work)
