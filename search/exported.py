"""Reads what an export wrote: the folder's configuration, and its network with weights.

Nothing found in the folder is run: the network is built from the configuration, the weights are plain numbers. Where
the family is `factory` the configuration names code, which is imported where the user allows it and not else.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from torch import Tensor, nn

from search.config import StudyConfig
from search.configfile import parse
from search.errors import ConfigError
from search.networks import build, check_stages
from search.plainyaml import LARGEST
from search.plainyaml import load as load_yaml
from search.schedule import FilterSchedule
from search.trust import refuse_code

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
TEST_IMAGES = "test_images.txt"
_LARGEST_SIZE = 2**20
"""Of an image, and classes."""
_LARGEST_LAYER = 2**32
"""Weights of a layer, 16 GiB of float32: no network of a study comes near, and torch would ask for the memory."""


class RawImageNetwork(torch.nn.Module):
    """Images as the data set has them in, logits out.

    Args:
        network: Takes normalised images.
        mean: Of each channel over the images the weights were trained on, shape `(channels,)`.
        deviation: Likewise.
        image_shape: Channels, height and width of an image.
    """

    image_mean: torch.Tensor
    image_deviation: torch.Tensor

    def __init__(
        self, network: torch.nn.Module, mean: list[float], deviation: list[float], image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.network, self.image_shape = network, image_shape
        # not persistent: they belong to the source, so the weights file holds the network's own state dict
        self.register_buffer("image_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("image_deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, classes)` of images `(batch, channels, height, width)` of any number type.

        Raises:
            ValueError: Images of another shape.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            msg = f"images {tuple(images.shape)}; give (batch, channels, height, width) of {self.image_shape} each"
            raise ValueError(msg)
        logits: torch.Tensor = self.network((images.float() - self.image_mean) / self.image_deviation)
        return logits


@dataclass(frozen=True)
class Export:
    """What the configuration of an exported folder says of its network.

    Attributes:
        config: The study's.
        schedule: The candidate.
        seed: What settled the run its weights come from.
    """

    config: StudyConfig
    schedule: FilterSchedule
    seed: int


@dataclass(frozen=True)
class _Input:
    """What the network takes and gives.

    Attributes:
        shape: Channels, height and width of an image.
        classes: How many logits.
        mean: Of each channel, shape `(channels,)`.
        deviation: Likewise.
    """

    shape: tuple[int, int, int]
    classes: int
    mean: list[float]
    deviation: list[float]


def load_model(folder: str | Path, *, allow_code: bool = False) -> nn.Module:
    """The trained network of an exported folder, in evaluation mode.

    It takes images `(batch, channels, height, width)` of any number type, with values as the data set has them and not
    scaled: `input_values` in the folder's `config.yaml` has the type, minimum and maximum of those it was trained on,
    such as uint8 from 0 to 16. Other values are not noticed and give wrong answers; another shape is a ValueError. It
    gives logits `(batch, classes)`, in the order of `class_names` there or, where that is empty, of the labels from 0.
    The network behind the normalisation is its attribute `network`.

    Args:
        folder: One that `filter-search export` or `filter-search train` wrote, such as
            `studies/digits/best/params-1500`.
        allow_code: Import and call the function that makes a network of family `factory`, which the folder names: for
            folders of your own.

    Raises:
        ConfigError: It is no such folder, has no weights, weights of another network, or names code that is not
            allowed.
    """
    where = Path(folder)
    values = _values(where)
    export, given = _export(where, values), _input(where, values)
    if not allow_code:
        refuse_code(export.config, where / "config.yaml", of_data=False)
    network = restore(export, given.shape, given.classes, where / WEIGHTS)
    return RawImageNetwork(network, given.mean, given.deviation, given.shape).eval()


def read(folder: Path) -> Export:
    """What an exported folder asks for.

    Raises:
        ConfigError: It holds no configuration of an export, or one that cannot be used.
    """
    return _export(folder, _values(folder))


def restore(export: Export, image_shape: tuple[int, int, int], classes: int, weights: Path) -> nn.Module:
    """The candidate's network with the weights of a file; torch's global generator is not moved.

    Raises:
        ConfigError: The file is missing, damaged, or of another network.
    """
    try:
        content = weights.read_bytes()
    except OSError as error:
        msg = (
            f"{weights} cannot be read ({error.strerror}); export the study again, or train the candidate by "
            "`filter-search train`: the card says why where a run left no weights"
        )
        raise ConfigError(msg) from None
    check_stages(export.config.network, len(export.schedule), image_shape)
    with torch.random.fork_rng(devices=[]):
        network = build(export.config.network, export.schedule, image_shape[0], classes)
    try:
        network.load_state_dict(_state(content))
    except (SafetensorError, RuntimeError) as error:
        first = " ".join(str(error).split())
        msg = (
            f"{weights} does not hold the weights of {export.schedule} as the config.yaml beside it has it ({first}); "
            "export the study again"
        )
        raise ConfigError(msg) from None
    return network


def _state(content: bytes) -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_weights(content)
    return state


def _values(folder: Path) -> Mapping[str, object]:
    """The content of `config.yaml`, of the schema that is read here.

    Raises:
        ConfigError: It is missing, cannot be read, or is no such file.
    """
    path = folder / "config.yaml"
    try:
        with path.open(encoding="utf-8") as file:
            values = load_yaml(file.read(LARGEST + 1), str(path))
    except FileNotFoundError:
        _refuse(folder, "there is no such file")
    except OSError as error:
        _refuse(folder, f"it cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        _refuse(folder, "it is no text")
    if not isinstance(values, dict):
        _refuse(folder, "it holds no keys with values")
    if values.get("schema") != 1:
        _refuse(folder, f"its schema is {values['schema']!r}" if "schema" in values else "the key schema is missing")
    return values


def _export(folder: Path, values: Mapping[str, object]) -> Export:
    schedule = _get(folder, values, "schedule", "a schedule in text", lambda given: isinstance(given, str))
    seed = _get(folder, values, "seed", "a whole number from 0", lambda given: type(given) is int and given >= 0)
    study = _get(folder, values, "study", "a study's configuration", lambda given: isinstance(given, dict))
    export = Export(parse(study, str(folder / "config.yaml")), FilterSchedule.parse(schedule), seed)
    if (largest := _largest_layer(export)) > _LARGEST_LAYER:
        msg = (
            f"schedule {export.schedule} in {folder / 'config.yaml'} needs a layer of up to {largest:,} weights; at "
            f"most {_LARGEST_LAYER:,} are built: put the exported schedule back, or export the study again"
        )
        raise ConfigError(msg)
    return export


def _largest_layer(export: Export) -> int:
    """Most weights a 3x3 convolution between two stages, or within one, may have."""
    network, filters = export.config.network, export.schedule.filters
    neighbours = [*pairwise((1, *filters))]
    if network.family != "plain" or network.blocks_per_stage != 1:
        neighbours += [(each, each) for each in filters]
    return max(9 * before * after for before, after in neighbours)


def _input(folder: Path, values: Mapping[str, object]) -> _Input:
    sizes = f"three whole numbers from 1 to {_LARGEST_SIZE:,}: channels, height, width"
    shape = _get(folder, values, "input_shape", sizes, lambda given: _is_list(given, 3, _is_size))
    classes = _get(folder, values, "classes", f"a whole number from 1 to {_LARGEST_SIZE:,}", _is_size)
    moments = _get(folder, values, "normalisation", "mean and deviation", lambda given: isinstance(given, dict))
    said = f"of each of {shape[0]} channels, a finite number"
    mean = _get(folder, moments, "mean", said, lambda given: _is_list(given, shape[0], _is_finite))
    deviation = _get(
        folder,
        moments,
        "deviation",
        f"{said} above 0",
        lambda given: _is_list(given, shape[0], _is_finite) and min(given) > 0,
    )
    return _Input((shape[0], shape[1], shape[2]), classes, mean, deviation)


def _get(folder: Path, values: Mapping[str, object], key: str, allowed: str, fits: Callable[[Any], bool]) -> Any:  # noqa: ANN401 # `fits` has looked at it
    """A value of the configuration.

    Raises:
        ConfigError: It is missing or not as allowed.
    """
    if key not in values:
        _refuse(folder, f"the key {key} is missing")
    if not fits(values[key]):
        _refuse(folder, f"{key} is {values[key]!r}, not {allowed}")
    return values[key]


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_SIZE


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_list(value: object, length: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(fits, value))


def _refuse(folder: Path, came: str) -> NoReturn:
    msg = (
        f"{folder / 'config.yaml'} is no exported configuration (schema 1): {came}; name a folder that `filter-search "
        "export` wrote, below a study's best/, or export the study again"
    )
    raise ConfigError(msg) from None
