"""Reads what an export wrote: the folder's configuration, and its network with weights.

Nothing found in the folder is run: the network is built from the configuration, the weights are plain numbers. Where
the family is `factory` the configuration names code of the user's own, which is imported as a study does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from torch import Tensor, nn

from search.config import StudyConfig
from search.configfile import parse
from search.errors import ConfigError
from search.networks import build, check_stages
from search.plainyaml import load as load_yaml
from search.schedule import FilterSchedule

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
TEST_IMAGES = "test_images.txt"


class RawImageNetwork(torch.nn.Module):
    """Images in the data set's own range in, logits out.

    Args:
        network: Takes normalised images.
        mean: Of each channel over the images the weights were trained on, shape `(channels,)`.
        deviation: Likewise.
    """

    image_mean: torch.Tensor
    image_deviation: torch.Tensor

    def __init__(self, network: torch.nn.Module, mean: list[float], deviation: list[float]) -> None:
        super().__init__()
        self.network = network
        # not persistent: they belong to the source, so the weights file holds the network's own state dict
        self.register_buffer("image_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("image_deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, classes)` of images `(batch, channels, height, width)` of any number type."""
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


def load_model(folder: str | Path) -> nn.Module:
    """The trained network of an exported folder, in evaluation mode.

    It takes images `(batch, channels, height, width)` in the data set's own range and gives logits
    `(batch, classes)`; the network behind the normalisation is its attribute `network`. A network of family `factory`
    is made by the function its configuration names, which is imported and called.

    Args:
        folder: One that `filter-search export` or `filter-search train` wrote, such as
            `studies/digits/best/params-1500`.

    Raises:
        ConfigError: It is no such folder, has no weights, or weights of another network.
    """
    where = Path(folder)
    values = _values(where)
    export, given = _export(where, values), _input(where, values)
    network = restore(export, given.shape, given.classes, where / WEIGHTS)
    return RawImageNetwork(network, given.mean, given.deviation).eval()


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
    """The content of `config.yaml`; empty where it cannot be read or is no mapping."""
    path = folder / "config.yaml"
    try:
        values = load_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError):
        return {}
    return values if isinstance(values, dict) else {}


def _export(folder: Path, values: Mapping[str, object]) -> Export:
    match values:
        case {"schema": 1, "schedule": str(schedule), "seed": int(seed), "study": dict(study)} if seed >= 0:
            return Export(parse(study, str(folder / "config.yaml")), FilterSchedule.parse(schedule), seed)
    raise ConfigError(_not_exported(folder))


def _input(folder: Path, values: Mapping[str, object]) -> _Input:
    match values:
        case {
            "input_shape": [int(channels), int(height), int(width)],
            "classes": int(classes),
            "normalisation": {"mean": [*mean], "deviation": [*deviation]},
        } if len(mean) == len(deviation) == channels and all(isinstance(each, float) for each in (*mean, *deviation)):
            return _Input((channels, height, width), classes, mean, deviation)
    raise ConfigError(_not_exported(folder))


def _not_exported(folder: Path) -> str:
    return (
        f"{folder / 'config.yaml'} is no exported configuration (schema 1); name a folder that `filter-search export` "
        "wrote, below a study's best/"
    )
