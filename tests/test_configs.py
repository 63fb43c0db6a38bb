"""The studies in `configs/`: each can be run, and each series varies what it says and nothing else."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from search import configfile
from search.combinations import SIDE
from search.data import ImageData
from search.evaluate import Fidelity, Scored
from search.metering import price
from search.networkconfig import NetworkConfig
from search.plan import make_plan
from search.schedule import FilterSchedule
from search.sources import load
from search.splits import Splits
from search.training import TrainingEvaluator

FOLDER = Path(__file__).parents[1] / "configs"
FEATURES = range(2, 7)
CLASSES = (2, 5, 10)


def read(name):
    return configfile.read(FOLDER / f"{name}.yaml")


STAND_INS = {
    "fashion-mnist": ((1, 14, 14), 10),
    "fashion-mnist-residual": ((1, 14, 14), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagefolder": ((3, 96, 96), 5),
}
"""Shape and classes of the data that are not part of the repository; noise of that shape stands in for them."""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_study_can_be_planned_and_trains(path, monkeypatch):
    config = configfile.read(path)
    assert config.name == path.stem
    if config.table and config.table.path and not Path(config.table.path).exists():
        pytest.skip(f"{config.table.path} is not part of the repository")
    if path.stem in STAND_INS:
        shape, classes = STAND_INS[path.stem]
        count = max(4 * classes, round(2 * config.training.batch_size / config.training.share))  # to fill a batch
        images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
        noise = ImageData(images, np.arange(count) % classes, classes, "noise")
        monkeypatch.setattr("search.plan.load", lambda _: noise)
    plan = make_plan(config)
    assert plan.exhaustive or len(plan.anchors) < config.search.trials  # rules leave trials to the sampler
    if config.table is None:
        evaluate = TrainingEvaluator(
            config.network, config.training, plan.data, Splits(plan.data, config.data), torch.device("cpu")
        )
        (run,) = evaluate(plan.space.smallest, [1], Fidelity(1, config.training.share), "validation")
        assert isinstance(run, Scored)


@pytest.mark.parametrize("features", FEATURES)
def test_combinations_set_the_budgets_by_what_the_hypothesis_costs(features):
    config = read(f"combinations-k{features}")
    classes = 2**features - 1
    costs = price(NetworkConfig(), FilterSchedule((features, classes)), (1, SIDE, SIDE), classes, 64)
    assert [(budget.cost, budget.limit) for budget in config.budgets[:2]] == [
        (cost, costs[cost]) for cost in ("params", "activations")
    ]
    ruled = [fit for fit in make_plan(config).judged if str(fit.rule) == f"combinations({features})"]
    assert [fit.schedule.filters for fit in ruled[:2]] == [(features, classes)] * 2


@pytest.mark.parametrize("features", FEATURES)
def test_combinations_differ_in_the_features_and_what_follows(features):
    first, other = read("combinations-k2"), read(f"combinations-k{features}")
    kept = {"filters", "network", "training", "search", "confirm", "seed"}
    assert first.semantic()["data"] | {"features": features} == other.semantic()["data"]
    assert first.model_dump(include=kept) == other.model_dump(include=kept)
    assert first.rules.compared == other.rules.compared
    assert first.budgets[2:] == other.budgets[2:]


@pytest.mark.parametrize("classes", CLASSES)
def test_classes_differ_in_what_the_same_images_are_called(classes):
    config, whole = read(f"classes-{classes}"), read("classes-10")
    changed = {line.partition(":")[0] for line in configfile.difference(whole.semantic(), config)}
    assert changed <= {"name", "question", "data.classes"}
    data, every = load(config.data), load(whole.data)
    assert data.classes == classes
    assert np.array_equal(data.images, every.images)
    assert np.array_equal(Splits(data, config.data).test, Splits(every, whole.data).test)


def test_memory_falls_by_halves():
    limits = [budget.limit for budget in read("memory").budgets]
    assert limits == [2**21 >> step for step in range(5)]
    members = [fit.schedule.filters for fit in make_plan(read("memory")).judged]
    assert all(larger[0] > 1.5 * smaller[0] for larger, smaller in pairwise(members))
