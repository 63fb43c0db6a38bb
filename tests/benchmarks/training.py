"""W1: the same trainings by every side, in turn.

    make bench

Each round gives all sides the same jobs, the sides in turn and back: a plain loop over tensors (a), Optuna and
Lightning over tensors (b) and, for a few of them, over pictures (c), and the product (d). What is compared are the
seconds of a round, so what else the machine does falls on all sides alike.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Self

from benchmarks.ratios import Interval, Spread, markdown, ratios
from benchmarks.sideprocess import PeakMemory, SideProcess
from benchmarks.work import BANDS, Job, Trained, Work, jobs_of_round

SIDES = {"a": "plainloop", "b": "lightningtrials", "c": "imagetrials", "d": "ours"}
ROUNDS = 4
SEEDS = range(4)
"""As many as `search.seeds_per_trial` has by default: what the product trains in one pass."""
_EQUAL = 0.2
"""Points of mean accuracy that sides may differ by."""
_ALL = "all"


@dataclass(frozen=True)
class Turn:
    """What one side did in one round."""

    number: int
    trained: Sequence[Trained]
    wall_seconds: float

    def of(self, jobs: Collection[Job]) -> Self:
        """The turn as if it had been these jobs alone: their share of the seconds that jobs took their processes."""
        own = [one for one in self.trained if one.job in jobs]
        share = sum(one.seconds for one in own) / sum(one.seconds for one in self.trained)
        return type(self)(self.number, own, self.wall_seconds * share)

    def jobs(self, band: str) -> list[Job]:
        return [one.job for one in self.trained if band in (_ALL, one.job.band)]


@dataclass(frozen=True)
class Turns:
    """All turns on one data set, by side."""

    work: Work
    by_side: Mapping[str, list[Turn]] = field(default_factory=lambda: {side: [] for side in SIDES})

    def ratios(self, side: str, band: str) -> Spread:
        """How many times as long as (d) a side took for the jobs that it had, round by round."""
        parts = [turn.of(turn.jobs(band)) for turn in self.by_side[side]]
        own = [self.by_side["d"][part.number].of(part.jobs(band)) for part in parts]
        return ratios([part.wall_seconds for part in parts], [part.wall_seconds for part in own])

    def difference(self, side: str) -> Interval:
        """A side's accuracy less (a)'s, job by job."""
        turns, plain = self.by_side[side], self.by_side["a"]
        return Interval.of(_accuracies(turns), _accuracies([plain[turn.number].of(turn.jobs(_ALL)) for turn in turns]))

    def seconds_per_run(self, side: str, band: str) -> Spread:
        """Wall seconds for one training of a band, over the rounds."""
        parts = [turn.of(turn.jobs(band)) for turn in self.by_side[side]]
        return Spread.of([part.wall_seconds / len(part.trained) for part in parts])


def _accuracies(turns: Sequence[Turn]) -> list[float]:
    return [one.accuracy for turn in turns for one in turn.trained]


def peak_memory(works: Sequence[Work]) -> dict[str, int]:
    """Bytes each side takes with nothing else of the benchmark running; an epoch of the largest schedules.

    On the largest data set alone, as a study has one: what trains together is measured before its workers start.
    """
    peaks = {}
    for side, module in SIDES.items():
        with SideProcess(module) as process, PeakMemory(process.pid) as memory:
            process.train(_brief(works[-1]), _largest())
        peaks[side] = memory.bytes
    return peaks


def measure(works: Sequence[Work]) -> list[Turns]:
    """All rounds of all sides; processes are started, and have trained every data set briefly, before."""
    with ExitStack() as stack:
        processes = {side: stack.enter_context(SideProcess(module)) for side, module in SIDES.items()}
        for process in processes.values():
            for work in works:
                process.train(_brief(work), _largest())
        return [_rounds(work, processes) for work in works]


def _rounds(work: Work, processes: Mapping[str, SideProcess]) -> Turns:
    turns = Turns(work)
    for number in range(ROUNDS):
        jobs = jobs_of_round(number, ROUNDS, SEEDS)
        for side in list(processes)[:: -1 if number % 2 else 1]:
            if side == "c" and number > 0:
                continue
            own = [job for job in jobs if job.seed == 0] if side == "c" else jobs
            turn = Turn(number, *processes[side].train(work, own))
            turns.by_side[side].append(turn)
            sys.stderr.write(f"{work.name}, round {number + 1} of {ROUNDS}, ({side}): {turn.wall_seconds:.1f} s\n")
    return turns


def _largest() -> list[Job]:
    """A schedule for each worker, so that all of them are warm."""
    return [job for job in jobs_of_round(0, ROUNDS, SEEDS) if job.band == "large"]


def _brief(work: Work) -> Work:
    return replace(work, recipe=work.recipe.model_copy(update={"epochs": 1}))


def report(measured: Sequence[Turns], peaks: Mapping[str, int]) -> Iterator[str]:
    yield "## W1: the same trainings on every side"
    yield ""
    yield (
        f"24 schedules in three bands of 8, each trained with {len(SEEDS)} seeds, in {ROUNDS} rounds of 6 schedules; "
        "every side in turn trains a round. (a): a plain PyTorch loop over tensors. (b): Optuna and Lightning "
        "over tensors in memory. (c): the same over pictures and torchvision's transforms, for 6 schedules under one "
        "seed. These run one after the other with torch's default threads. (d): the product, "
        f"{len(SEEDS)} seeds in one pass where that is measured to be faster, a process of one thread per core. "
        "Starting processes is not counted. "
        "How many times as long as (d), median of the rounds (least to most):"
    )
    yield ""
    yield from markdown(
        ("images", "band", "(a) / (d)", "(b) / (d)", "(c) / (d)", "(d), seconds a run"),
        [
            (
                turns.work.name,
                band,
                *(str(turns.ratios(side, band)) for side in ("a", "b")),
                f"{turns.ratios('c', band).median:.2f}",
                f"{turns.seconds_per_run('d', band).median:.4f}",
            )
            for turns in measured
            for band in (*BANDS, _ALL)
        ],
    )
    yield (
        "Test accuracy, %, and its difference to (a)'s over pairs of equal seed, which have the same initial weights, "
        f"images and order: points with a 95 % interval, to lie within {_EQUAL} of 0."
    )
    yield ""
    yield from markdown(
        ("images", "side", "runs", "accuracy", "less (a)'s", f"within {_EQUAL}"),
        [row for turns in measured for row in _accuracy_rows(turns)],
    )
    yield (
        "Most memory, summed over a side's processes (proportional set size), when it trains the largest schedules on "
        "the largest images:"
    )
    yield ""
    yield from markdown(
        ("side", "MiB", "of (a)'s", "of (b)'s"),
        [
            (side, f"{peak / 2**20:.0f}", *(f"{peak / max(1, peaks[other]):.2f}" for other in ("a", "b")))
            for side, peak in peaks.items()
        ],
    )


def _accuracy_rows(turns: Turns) -> Iterator[tuple[str, ...]]:
    for side, own in turns.by_side.items():
        accuracies = _accuracies(own)
        row = turns.work.name, side, str(len(accuracies)), f"{100 * sum(accuracies) / len(accuracies):.2f}"
        difference = turns.difference(side)
        yield *row, *(("", "") if side == "a" else (str(difference), "yes" if difference.within(_EQUAL) else "no"))
