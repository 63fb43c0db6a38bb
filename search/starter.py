"""A first configuration for a user's own images, with stages and budgets that suit them.

Owns the choices a newcomer would have to make. Everything else is left at its default.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from search import configfile
from search.config import StudyConfig
from search.cost import Costs
from search.dataconfig import TORCHVISION_NAMES, DataConfig
from search.errors import ConfigError, DataError
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule
from search.sources import load
from search.splits import Splits
from search.trainingconfig import TrainingConfig

_EMBEDDED = ("digits", "combinations")
_ROOT = "~/data"
"""Where torchvision's sets are looked for."""
_ASSUMED_SHAPE, _ASSUMED_CLASSES = (3, 32, 32), 10
_STAGES_UP_TO = {32: 3, 64: 4}
"""Stages of images whose shorter side has so many pixels; larger ones get one more than the last."""
_LARGE_STEM_FROM = 96
_FIRST_FILTERS = 8
_FEWEST_FILTERS = 4
_BRIEF = {
    "search": {"trials": 48, "seeds_per_trial": 2},
    "confirm": {"looks": [8, 16, 32], "challengers": 3},
    "soundness": {"learning_rate_runs": 8},
}
"""A first answer within hours of two cores for small images; a GPU affords more of everything."""
_EPOCHS, _LEARNING_RATE = 10, 0.01
_TRAINING_IMAGES = 5000
"""Images a run should see in an epoch: enough to rank schedules by, as a rule."""
_BYTE_UNITS = (2**10, 2**20, 2**30)


@dataclass(frozen=True)
class Start:
    """A first configuration.

    Attributes:
        config: The configuration.
        remarks: What its user should know of how it was made.
    """

    config: StudyConfig
    remarks: tuple[str, ...] = ()


def study_name(source: str) -> str:
    """What the study of a data set is called; see `start`. A name that files may have.

    Raises:
        ConfigError: The source is none.
    """
    return source if source in _EMBEDDED else _data_section(source)[0]


def start(source: str) -> Start:
    """The first configuration for a data set.

    Args:
        source: A source's name, a folder of images, a `.npz` file, or `package.module:function`.

    Raises:
        ConfigError: It is none of these, or a function that cannot be called.
        DataError: The images cannot be read. A set of torchvision's need not be there.
    """
    if source in _EMBEDDED:
        return Start(configfile.parse({"name": source, "data": {"source": source}}, f"--data {source}"))
    name, section = _data_section(source)
    config = DataConfig.model_validate(section)
    try:
        data = load(config)
        remarks = data.notes
    except DataError as error:
        if config.source in TORCHVISION_NAMES:
            assumed = (
                f"stages and budgets suit {_ASSUMED_CLASSES} classes of 32x32 colour images; once the set is there, "
                f"remove {name}.yaml and write it again"
            )
            return Start(
                _configuration(name, section, _ASSUMED_SHAPE, _ASSUMED_CLASSES, 1, _TRAINING_IMAGES),
                (str(error), assumed),
            )
        if config.source != "folder":
            raise
        # Its user decides whether to mend files or to leave them out; either way the other images say what suits them.
        data, remarks = load(config.model_copy(update={"on_bad": "skip"})), (str(error),)
    splits = Splits(data, config)
    training = len(splits.train_validation(0).training)
    share = 1.0 if training <= _TRAINING_IMAGES else float(f"{_TRAINING_IMAGES / training:.1g}")
    if share < 1:
        remarks += (f"every run trains on {share:.0%} of the training images: raise training.share for more",)
    seen = len(splits.train_validation(0, share).training)
    return Start(_configuration(name, section, data.image_shape, data.classes, share, seen), remarks)


def _data_section(source: str) -> tuple[str, dict[str, Any]]:
    """The study's name and its section on data.

    Raises:
        ConfigError: See `start`.
    """
    path = Path(source).expanduser()
    if source in TORCHVISION_NAMES:
        return source, {"source": source, "path": _ROOT}
    if path.is_dir():
        return _safe(path.resolve().name), {"source": "folder", "path": source}
    if path.suffix == ".npz":
        return _safe(path.stem), {"source": "npz", "path": source}
    if ":" in source:
        return _safe(source.partition(":")[0].rpartition(".")[2]), {"source": "factory", "factory": source}
    msg = (
        f"--data {source}: no source and no folder; give digits, combinations, one of torchvision's sets "
        f"({', '.join(TORCHVISION_NAMES)}), a folder of images, an .npz file or module:function"
    )
    raise ConfigError(msg)


def _safe(name: str) -> str:
    """A name that a study and its files may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "images"


def _configuration(
    name: str, section: dict[str, Any], shape: tuple[int, int, int], classes: int, share: float, images: int
) -> StudyConfig:
    """The first configuration for images of this shape, of which a run trains on so many."""
    from search.metering import price  # takes seconds, and digits do not need it

    side = min(shape[1:])
    stages = next((count for most, count in _STAGES_UP_TO.items() if side <= most), max(_STAGES_UP_TO.values()) + 1)
    network = {"stem": "large"} if side >= _LARGE_STEM_FROM else {}
    schedule = FilterSchedule(tuple(_FIRST_FILTERS * 2**stage for stage in range(stages)))
    costs = price(NetworkConfig.model_validate(network), schedule, shape, classes, TrainingConfig().batch_of(images))
    # One range for all stages, or rules that do not grow had no member in it.
    ranges = [{"low": _FEWEST_FILTERS, "high": 2 * schedule.filters[-1]}] * stages
    tree = {
        "name": name,
        "question": f"What does doubling the filters at every stage cost on {name}?",
        "data": section,
        "network": network,
        "filters": {"stages": ranges},
        "budgets": _budgets(costs),
        "training": {"epochs": _EPOCHS, "learning_rate": _LEARNING_RATE, "share": share},
        **_BRIEF,
    }
    return configfile.parse(tree, f"--data {name}")


def _budgets(costs: Costs) -> list[str]:
    """Limits on parameters, MACs and memory that just admit these costs, two figures each."""
    amounts = {cost: costs[cost] for cost in ("params", "macs", "memory")}
    unit = max((size for size in _BYTE_UNITS if size <= amounts["memory"]), default=1)
    limits = {cost: int(_rounded_up(amount)) for cost, amount in amounts.items()}
    limits["memory"] = ceil(_rounded_up(Fraction(amounts["memory"], unit)) * unit)
    return [f"{cost} <= {limit}" for cost, limit in limits.items()]


def _rounded_up(amount: int | Fraction) -> Fraction:
    """The least number of two figures that is no smaller."""
    step = Fraction(10) ** (floor(log10(amount)) - 1)
    return ceil(Fraction(amount) / step) * step
