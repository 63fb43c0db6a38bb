"""W2 and W4: whole studies by the command, the seconds until their verdict and their trials a second.

Each is one `filter-search run` in a new folder, its processes and files included.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.ratios import markdown
from benchmarks.sideprocess import PeakMemory
from optuna.trial import FrozenTrial, TrialState

from search.configfile import read
from search.study import load
from search.trainingconfig import TrainingConfig

DIGITS = """\
name: digits
budgets: [macs <= 40000]
search: {trials: 32, sampler: band}
confirm: {looks: [16, 32], challengers: 2}
soundness: {learning_rate_runs: 0}
"""
"""Sampler `band` scales what it proposes until it just fits the budget, so all trials are about the same work."""
SEARCH = DIGITS.replace("{looks: [16, 32], challengers: 2}", "{looks: [2], challengers: 1}")
"""The same search with hardly any confirmation, for its throughput."""
TABLE = """\
name: planted
table:
  surface: {best_ratio: 1.0, strength: 0.15, size_gain: 0.3, accuracy: 0.9}
  images: {channels: 1, height: 8, width: 8, classes: 10, batch_size: 64}
  noise_sd: 0.004
budgets: [params <= 1500]
search: {trials: 32}
"""


@dataclass(frozen=True)
class Study:
    """One study, from command to verdict.

    Attributes:
        workers: Its processes.
        verdict_seconds: From the command to `verdict.json`.
        runs: Trainings of search and confirmation.
        throughput: Trials a second while every worker was at it.
        peak_bytes: Most memory of all its processes at once.
    """

    workers: int
    verdict_seconds: float
    runs: int
    throughput: float
    peak_bytes: int


def run(config: str, workers: int) -> Study:
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name, "study.yaml"), Path(name, "study")
        file.write_text(config)
        command = [sys.executable, "-m", "search", "run", file, "--out", folder, "--workers", str(workers)]
        began = time.time()
        with (
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
            PeakMemory(process.pid) as memory,
        ):
            code = process.wait()
        if code:
            raise subprocess.CalledProcessError(code, command)
        with (folder / "runs.csv").open() as opened:
            runs = len(list(csv.DictReader(opened)))
        trials = load(folder, read(file).name).trials("search", TrialState.COMPLETE)
        verdict_seconds = (folder / "verdict.json").stat().st_mtime - began
        return Study(workers, verdict_seconds, runs, throughput(trials), memory.bytes)


def throughput(trials: Sequence[FrozenTrial]) -> float:
    """Trials a second from when the last worker began its first trial until the first worker ended its last.

    A trial that reaches beyond that counts by the part of it within.
    """
    spans: dict[int, list[tuple[datetime, datetime]]] = {}
    for trial in trials:
        spans.setdefault(trial.user_attrs["owner"], []).append((trial.datetime_start, trial.datetime_complete))
    begin = max(min(start for start, _ in own) for own in spans.values())
    end = min(max(end for _, end in own) for own in spans.values())
    done = sum(
        max(0.0, (min(stop, end) - max(start, begin)) / (stop - start))
        for own in spans.values()
        for start, stop in own
    )
    return done / (end - begin).total_seconds()


def worker_counts() -> list[int]:
    """1, 2, 4, ... as far as there are cores."""
    return [2**power for power in range((os.cpu_count() or 1).bit_length())]


def report(studies: Sequence[Study], table: Study, other_seconds_per_epoch: float) -> Iterator[str]:
    """Both works as tables.

    Args:
        studies: The digits study, by workers.
        table: The study on a table.
        other_seconds_per_epoch: Of side (b), for one training of a network of the study's size.
    """
    yield "## W2: until the verdict"
    yield ""
    yield (
        "`filter-search run` on the digits within 40,000 MACs, 32 trials of 4 seeds and confirmation by up to 32 runs "
        "a schedule, and on a table of known accuracies; seconds from the command to `verdict.json`, all processes' "
        "start and every file included. (b) would take its seconds for an epoch of a middle schedule, measured "
        "above, times epochs and runs; that is reckoned, not run, and without its own start."
    )
    yield ""
    most = studies[-1]
    other_seconds = most.runs * TrainingConfig().epochs * other_seconds_per_epoch
    yield from markdown(
        ("study", "workers", "runs", "seconds", "(b), seconds", "ratio", "MiB"),
        [
            (
                "digits",
                str(most.workers),
                str(most.runs),
                f"{most.verdict_seconds:.1f}",
                f"{other_seconds:.1f}",
                f"{other_seconds / most.verdict_seconds:.2f}",
                f"{most.peak_bytes / 2**20:.0f}",
            ),
            (
                "table",
                str(table.workers),
                str(table.runs),
                f"{table.verdict_seconds:.1f}",
                "",
                "",
                f"{table.peak_bytes / 2**20:.0f}",
            ),
        ],
    )
    yield "## W4: throughput by workers"
    yield ""
    yield "The digits study of W2; trials a second of its search, from storage, while all workers were at it."
    yield ""
    yield from markdown(
        ("workers", "trials a second", "efficiency"),
        [
            (str(s.workers), f"{s.throughput:.2f}", f"{s.throughput / s.workers / studies[0].throughput:.2f}")
            for s in studies
        ],
    )
