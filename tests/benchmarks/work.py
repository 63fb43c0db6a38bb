"""What every side trains: three data sets of images that need no download, and 24 schedules in three bands of size.

Knows nothing of torch, so that whoever hands work out does not hold what only those who do it need.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from search.data import ImageData
from search.dataconfig import DataConfig
from search.schedule import FilterSchedule
from search.sources import load
from search.trainingconfig import TrainingConfig

BANDS = {
    "small": "4-8-16 5-10-10 4-7-15 6-6-6 4-8-8 3-6-12 4-4-4 2-4-8",
    "middle": "8-16-32 8-15-31 10-14-20 12-12-12 8-16-16 8-12-16 6-12-24 8-8-8",
    "large": "16-32-64 16-32-32 24-24-24 16-24-32 12-24-48 20-20-20 12-24-24 16-16-16",
}
"""3,500 to 14,000, to 42,000 and to 157,000 MACs on 8x8 images, 12 times as many on 28x28; most MACs first."""


@dataclass(frozen=True)
class Job:
    """One training: a schedule of a band, under one seed."""

    band: str
    schedule: FilterSchedule
    seed: int


@dataclass(frozen=True)
class Trained:
    """A job carried out: accuracy on the test split, a fraction, and the seconds it took its process."""

    job: Job
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Work:
    """A data set and the recipe its networks get; small, so that it can be sent to other processes.

    Attributes:
        name: What the table calls it.
        path: The images, as source `npz` takes them.
        recipe: The product's; the same on every side.
    """

    name: str
    path: Path
    recipe: TrainingConfig


def jobs_of_round(number: int, rounds: int, seeds: Sequence[int]) -> list[Job]:
    """A round's share of the 24 schedules, as many of each band, under every seed; the largest schedules first."""
    return [
        Job(band, FilterSchedule.parse(text), seed)
        for band, schedules in reversed(BANDS.items())
        for text in schedules.split()[number::rounds]
        for seed in seeds
    ]


def write_works(folder: Path) -> list[Work]:
    """The three data sets, written to a folder, with their training: short, and too gentle to magnify rounding."""
    digits = load(DataConfig())
    sets = {
        "8x8": (digits.images, digits.labels, TrainingConfig(epochs=6)),
        "28x28": (*_enlarged(digits, 28, 1), TrainingConfig(epochs=3, batch_size=32, learning_rate=0.005)),
        "32x32x3": (*_enlarged(digits, 32, 3), TrainingConfig(epochs=2, batch_size=32, learning_rate=0.005)),
    }
    works = []
    for name, (images, labels, recipe) in sets.items():
        works.append(Work(name, folder / f"{name}.npz", recipe))
        np.savez(works[-1].path, x_train=images.transpose(0, 2, 3, 1), y_train=labels)
    return works


def _enlarged(digits: ImageData, side: int, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The digits at `side` pixels as uint8 `(n_images, channels, side, side)`, tinted at random and noisy."""
    rng = np.random.default_rng((side, channels))
    grey = ndimage.zoom(15.0 * digits.images, (1, 1, side / 8, side / 8), order=1)
    tint = rng.uniform(0.4, 1, (len(grey), channels, 1, 1)) if channels > 1 else 1.0
    noise = rng.normal(0, 10, (len(grey), channels, side, side))
    return np.clip(grey * tint + noise, 0, 255).astype(np.uint8), digits.labels
