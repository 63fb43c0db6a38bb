"""Side (d): the product's own training, all seeds of a schedule in one pass, in as many processes as it starts."""

import functools
import multiprocessing
import os
import time
from collections.abc import Sequence
from itertools import groupby
from multiprocessing.pool import Pool

import torch
from benchmarks.runs import images_of, splits_of
from benchmarks.work import Job, Trained, Work

from search.evaluate import Fidelity
from search.networkconfig import NetworkConfig
from search.training import TrainingEvaluator, choose_device


def train(work: Work, jobs: Sequence[Job]) -> list[Trained]:
    """A pass for each schedule, given to whichever worker is free."""
    passes = [(work, list(own)) for _, own in groupby(jobs, key=lambda job: job.schedule)]
    return [trained for runs in _workers().imap(train_together, passes) for trained in runs]


@functools.cache
def _workers() -> Pool:
    """Started once, with a thread each, as `search.launch` starts them: one per core, one on a GPU."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    count = 1 if torch.cuda.is_available() else os.cpu_count()
    return multiprocessing.get_context("spawn").Pool(count, torch.set_num_threads, (1,))


def train_together(one: tuple[Work, list[Job]]) -> list[Trained]:
    work, jobs = one
    began = time.perf_counter()
    evaluate = _evaluator(work)
    runs = evaluate(jobs[0].schedule, [job.seed for job in jobs], Fidelity.brief(work.recipe), "test")
    seconds = (time.perf_counter() - began) / len(jobs)
    return [Trained(job, run.accuracy, seconds) for job, run in zip(jobs, runs, strict=True)]


@functools.cache
def _evaluator(work: Work) -> TrainingEvaluator:
    return TrainingEvaluator(NetworkConfig(), work.recipe, images_of(work), splits_of(work), choose_device("auto"))
