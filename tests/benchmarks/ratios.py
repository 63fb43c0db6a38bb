"""What the training benchmarks share: ratios of what was measured in turn, intervals of paired differences, tables."""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
from scipy import stats

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "optuna", "numpy")


@dataclass(frozen=True)
class Spread:
    """Median, least and most of what was measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(float(np.median(values)), float(min(values)), float(max(values)))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times as long one side took as another, round by round."""
    return Spread.of([a / b for a, b in zip(slower, faster, strict=True)])


@dataclass(frozen=True)
class Interval:
    """Mean of paired differences and half the width of its 95 % interval, after Student; both in points."""

    mean: float
    half: float

    @classmethod
    def of(cls, ours: Sequence[float], others: Sequence[float]) -> Self:
        """Of fractions, the same jobs in the same order; pairs are taken as independent."""
        differences = 100 * (np.array(ours) - np.array(others))
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        return cls(float(differences.mean()), float(stats.t.ppf(0.975, len(differences) - 1) * error))

    def within(self, points: float) -> bool:
        """Whether the whole interval is no further than this from no difference."""
        return abs(self.mean) + self.half <= points

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half:.2f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; columns are padded, so that it reads in a terminal too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    yield line(header)
    yield line(["-" * width for width in widths])
    yield from map(line, rows)
    yield ""


def heading(title: str, command: str) -> Iterator[str]:
    """What was measured, by which command, when, on which hardware, with which versions and under which load."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield f"# {title}"
    yield ""
    yield (
        f"Made by `{command}`, {datetime.now(UTC):%Y-%m-%d}: {_hardware()}; Python {platform.python_version()}, "
        f"{versions}. Load of the minute before: {os.getloadavg()[0]:.1f}."
    )
    yield ""


def _hardware() -> str:
    import torch  # here: a side's process reads this module, and counts what it holds

    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {gpu}"
