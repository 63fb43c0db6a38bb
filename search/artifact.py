"""A trained network as files that need nothing of this package: weights, model source, ONNX, and how to check them.

Owns what every folder with weights holds, whichever training they come from. What is written about a study's choice
is the business of `export`.
"""

import inspect
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from scipy.special import ndtri
from scipy.stats import binomtest
from torch import Tensor, nn

from search.config import StudyConfig
from search.cost import Costs
from search.data import ImageData
from search.errors import FilterSearchError
from search.evaluate import Fidelity
from search.exported import ONNX, TEST_IMAGES, WEIGHTS, Export, RawImageNetwork, restore
from search.folder import make, write_whole
from search.metering import price
from search.networks import source
from search.networks.blocks import without_torchvision
from search.onnxfile import OnnxError, OnnxFile, to_onnx
from search.pages import fill
from search.schedule import FilterSchedule
from search.scoring import Parts, accuracy, parts_of
from search.sources import load
from search.splits import Splits, TrainValidation
from search.verdict import Interval

# Forward MACs of a step from which a second thread pays on a CPU. Below, threads mostly wait for each other: on two
# busy cores 64-128-256 on 8x8 images (5 * 10^7) took 3.4 times as long on two threads as on one, 4-7-15 30 times.
_MACS_WORTH_THREADS = 10**9
_SCORED_AT_ONCE = 256
_ONNX_SAMPLES = 7
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy", "safetensors")


@dataclass(frozen=True)
class Provenance:
    """What a trained network comes from.

    Attributes:
        config: The study's.
        data: Its images.
        splits: Which of them test, validate and train.
        schedule: The candidate.
        seed: What settled the run.
        fidelity: How much training it got.
    """

    config: StudyConfig
    data: ImageData
    splits: Splits
    schedule: FilterSchedule
    seed: int
    fidelity: Fidelity

    @property
    def drawn(self) -> TrainValidation:
        """The images that trained and validated."""
        return self.splits.train_validation(self.seed, self.fidelity.share)

    @property
    def moments(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel over the images that trained, exactly as the network had them."""
        mean, deviation = self.data.normalisation(self.drawn.training)
        return mean.tolist(), deviation.tolist()

    @property
    def input_values(self) -> dict[str, str | int | float]:
        """Type, minimum and maximum of the pixels that trained: what the network must be given later."""
        images, training = self.data.images, self.drawn.training
        lowest, highest = (found[training] for found in (images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))))
        return {"dtype": str(images.dtype), "minimum": lowest.min().item(), "maximum": highest.max().item()}

    @property
    def input_in_words(self) -> str:
        """The same for people: `uint8 with values from 0 to 16`."""
        values = self.input_values
        return f"{values['dtype']} with values from {values['minimum']:.6g} to {values['maximum']:.6g}"

    @property
    def class_order(self) -> str:
        """What the order of the logits is."""
        if self.data.class_names:
            return "of `class_names` in config.yaml"
        if self.config.data.class_groups():
            return "of `data.classes` of the study in config.yaml"
        return f"of the labels 0 to {self.data.classes - 1}"

    @property
    def sizes(self) -> dict[str, int]:
        """Images of each split."""
        drawn = self.drawn
        return {
            "training": len(drawn.training),
            "validation": len(drawn.validation),
            "test": len(self.splits.test),
        }


@dataclass(frozen=True)
class Artifact:
    """What the files of a trained network are worth, by themselves.

    Attributes:
        correct: Per test image, whether the network as written classifies it correctly; shape `(n_images,)`.
        accuracy: Its test score with the 95 % interval over images, fractions.
        onnx: What `model.onnx` is, or why there is none.
    """

    correct: NDArray[np.bool_]
    accuracy: Interval
    onnx: OnnxFile | str

    def values(self) -> dict[str, Any]:
        """What a configuration records of it."""
        made = self.onnx
        return {
            "weights": {"accuracy": self.accuracy.mean, "right": int(self.correct.sum()), "images": len(self.correct)},
            "onnx": {"missing": made}
            if isinstance(made, str)
            else {
                "opset": made.opset,
                "largest_difference": made.difference,
                "params": made.params,
                "macs": made.macs,
            },
        }


def about(provenance: Provenance) -> dict[str, Any]:
    """What every exported configuration says of its network; keys are added, never renamed."""
    config, data = provenance.config, provenance.data
    mean, deviation = provenance.moments
    fidelity = provenance.fidelity
    return {
        "schema": 1,
        "schedule": str(provenance.schedule),
        "seed": provenance.seed,
        "input_shape": list(data.image_shape),
        "input_values": provenance.input_values,
        "classes": data.classes,
        "class_names": list(data.class_names),
        "normalisation": {"mean": mean, "deviation": deviation},
        "fidelity": {"epochs": fidelity.epochs, "share": fidelity.share, "resolution": config.data.resolution},
        "split": {
            "seed": config.data.split_seed,
            "test_drawn": not provenance.splits.own_test,
            "test_images": None if provenance.splits.own_test else TEST_IMAGES,
            **provenance.sizes,
        },
        "versions": {"filter_search": version("filter-search"), "python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
    }


def write_artifact(where: Path, provenance: Provenance, weights: Mapping[str, Tensor]) -> Artifact:
    """Write weights, model source, ONNX and, where it was drawn, the test split; score what was written.

    Scored on the CPU whatever trained it, so that whoever takes the files away finds the same number anywhere.

    Args:
        where: The folder, made if missing.
        provenance: What the network comes from.
        weights: Its state dict.

    Raises:
        StorageError: A file cannot be written.
    """
    make(where)
    write_source(where, provenance)
    write_whole(where / WEIGHTS, save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}))
    data, test = provenance.data, provenance.splits.test
    export = Export(provenance.config, provenance.schedule, provenance.seed)
    network = restore(export, data.image_shape, data.classes, where / WEIGHTS)
    model = RawImageNetwork(network, *provenance.moments, data.image_shape).eval()
    costs = price(
        provenance.config.network,
        provenance.schedule,
        data.image_shape,
        data.classes,
        provenance.config.training.batch_size,
    )
    correct = _correct(model, data, test, costs)
    made = _onnx(model, data.images[test[:_ONNX_SAMPLES]], costs)
    if isinstance(made, str):
        (where / ONNX).unlink(missing_ok=True)
    else:
        write_whole(where / ONNX, made.content)
    reached = accuracy_interval(correct, parts_of(data.labels[test], provenance.config.training.score))
    return Artifact(correct, reached, made)


def write_source(where: Path, provenance: Provenance) -> None:
    """Write `model.py` and, where it was drawn, the test split."""
    write_whole(where / "model.py", model_source(provenance))
    if provenance.splits.own_test:
        (where / TEST_IMAGES).unlink(missing_ok=True)
    else:
        places = _places_in_source(provenance)
        write_whole(where / TEST_IMAGES, "".join(f"{place}\n" for place in places))


def model_source(provenance: Provenance) -> str:
    """Source of the network that needs PyTorch alone, its modules named as in the study so that weights load."""
    config, data, schedule = provenance.config, provenance.data, provenance.schedule
    family, _, call = source(config.network, schedule, data.image_shape[0], data.classes).rpartition("\nnetwork = ")
    mean, deviation = provenance.moments
    return fill(
        "model.py",
        {
            "provenance": provenance,
            "source": without_torchvision(family).rstrip("\n") + "\n",
            "wrapper": inspect.getsource(RawImageNetwork),
            "call": call.strip(),
            "mean": mean,
            "deviation": deviation,
            "needs": _needs(config),
        },
    )


def loading_text(where: Path, provenance: Provenance, artifact: Artifact) -> str:
    """How to use the files, for a card."""
    text = fill(
        "loading.md",
        {
            "folder": where,
            "provenance": provenance,
            "needs": _needs(provenance.config),
            "onnx": artifact.onnx,
            "test_drawn": not provenance.splits.own_test,
        },
    )
    return text.rstrip("\n")


def _needs(config: StudyConfig) -> str:
    """What `model.py` cannot do without."""
    factory = config.network.factory
    return "PyTorch alone" if factory is None else f"PyTorch and the module {factory.partition(':')[0]}"


def is_worth_threads(costs: Costs, images: int) -> bool:
    """Whether so many images at once are enough work for more than one thread on a CPU."""
    return costs["macs"] * images >= _MACS_WORTH_THREADS


@contextmanager
def _all_threads(worth: bool) -> Iterator[None]:
    """As many threads as there are cores where that is worth it: a study trains on one of each process."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores if worth else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _correct(model: nn.Module, data: ImageData, test: NDArray[np.int64], costs: Costs) -> NDArray[np.bool_]:
    """Per test image, whether the model has its label; shape `(n_images,)`."""
    found = []
    with torch.no_grad(), _all_threads(is_worth_threads(costs, _SCORED_AT_ONCE)):
        for start in range(0, len(test), _SCORED_AT_ONCE):
            images = torch.from_numpy(data.images[test[start : start + _SCORED_AT_ONCE]])
            found.append(model(images).argmax(1).numpy())
    right: NDArray[np.bool_] = np.concatenate(found) == data.labels[test]
    return right


def _onnx(model: nn.Module, images: NDArray[np.uint8] | NDArray[np.float32], costs: Costs) -> OnnxFile | str:
    """The network as ONNX, or why not: whatever stands in the way, the rest of the export is worth having."""
    try:
        return to_onnx(model, torch.from_numpy(images), costs["params"], costs["macs"])
    except OnnxError as error:
        return str(error)


def _places_in_source(provenance: Provenance) -> NDArray[np.int64]:
    """Where in its source each test image is, counted from 0; dropped classes count as well."""
    data, config = provenance.data, provenance.config.data
    groups = config.class_groups()
    if not groups:
        return provenance.splits.test
    whole = load(config.model_copy(update={"classes": ()}))
    kept = np.flatnonzero(np.isin(whole.labels, [label for group in groups for label in group]))
    if len(kept) != len(data.labels):
        msg = f"{data.name} has other images than when it was loaded; leave it as it is while a study is exported"
        raise FilterSearchError(msg)
    return kept[provenance.splits.test]


def accuracy_interval(correct: NDArray[np.bool_], parts: Parts) -> Interval:
    """An accuracy with its 95 % interval over images drawn independently, within each part by itself.

    One part has its Wilson interval (1927, doi:10.1080/01621459.1927.10502953), the mean of several that of Price and
    Bonett (2004, Computational Statistics & Data Analysis 45:449): normal, from each part's binomial variance, with 4
    images more spread over the parts, half of them right, so that parts without an error do not narrow it to nothing.
    In 40,000 simulated splits each of up to 100 classes of 5 to 1,000 images it covered 94 to 99.9 %. It misleads
    where images come in groups.

    Args:
        correct: Per image, whether it was classified correctly; shape `(n_images,)`.
        parts: See `scoring.parts_of`.
    """
    right, sizes = (
        np.array(column) for column in zip(*((correct[part].sum(), len(part)) for part in parts), strict=True)
    )
    if len(parts) == 1:
        limits = binomtest(int(right[0]), int(sizes[0])).proportion_ci(method="wilson")
        return Interval(float(right[0] / sizes[0]), float(limits.low), float(limits.high))
    added = 4 / len(parts)
    shares = (right + added / 2) / (sizes + added)
    half = float(ndtri(0.975) * np.sqrt((shares * (1 - shares) / (sizes + added)).sum()) / len(parts))
    centre = float(shares.mean())
    return Interval(accuracy(correct, parts), max(0.0, centre - half), min(1.0, centre + half))
