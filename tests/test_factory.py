"""Networks of the user's own, from a package in the folder the command runs in."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from families import FAMILIES
from planted_findings import make_plan

from search import activity
from search.artifact import Provenance, model_source
from search.check import forecast
from search.cost import LARGEST_LIMIT, Budget
from search.data import ImageData
from search.dataconfig import DataConfig
from search.device import choose_device
from search.errors import ConfigError
from search.evaluate import Fidelity
from search.metering import price
from search.networkconfig import NetworkConfig
from search.networks import build
from search.polynomials import FittedCostModel
from search.pricing import BuiltCostModel, fit_cost_model
from search.schedule import FilterSchedule
from search.splits import Splits
from search.training import TrainingEvaluator
from search.trainingconfig import TrainingConfig

_SOURCE = """
import torch
from torch import nn


class Joining(nn.Module):
    '''Two convolutions, one after the other; both are read by the head.'''

    def __init__(self, filters, in_channels, classes):
        super().__init__()
        self.first = nn.Conv2d(in_channels, filters[0], 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(filters[0], filters[1], 3, padding=1), nn.BatchNorm2d(filters[1]))
        self.head = nn.Linear(filters[0] + filters[1], classes)

    def forward(self, images):
        first = self.first(images)
        joined = torch.cat([first, self.second(first.relu())], 1)
        return self.head(joined.mean((2, 3)))


def joining(filters, in_channels, classes):
    return Joining(filters, in_channels, classes)


def rated(filters, in_channels, classes):
    rates = [rate.item() for rate in torch.linspace(0.1, 0.2, len(filters))]  # not to be had on the meta device
    assert rates[0] < rates[-1]
    return Joining(filters, in_channels, classes)


def dropping(filters, in_channels, classes):
    return nn.Sequential(Joining(filters, in_channels, filters[0]), nn.Dropout(), nn.Linear(filters[0], classes))


class Viewing(nn.Module):
    def __init__(self, filters, in_channels, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, filters[0], 3), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(16 * filters[0], classes)

    def forward(self, images):
        features = self.body(images)
        return self.head(features.view(features.size(0), -1))


def viewing(filters, in_channels, classes):
    return Viewing(filters, in_channels, classes)


def breaking(filters, in_channels, classes):
    class Breaking(Joining):
        def forward(self, images):
            if self.training and not images.is_meta:
                raise LookupError("no such layer\\nnor another")
            return super().forward(images)

    return Breaking(filters, in_channels, classes)


def rounding(filters, in_channels, classes):
    return Joining([max(8, (width + 4) // 8 * 8) for width in filters], in_channels, classes)


def reading(filters, in_channels, classes):
    class Reading(Joining):
        def forward(self, images):
            return super().forward(images) if images.sum() > 0 else None

    return Reading(filters, in_channels, classes)


def failing(filters, in_channels, classes):
    raise KeyError("width")


def particular(filters, in_channels, classes):
    first, second = filters
    if not (16 <= first <= 128 and 30 <= second <= 32):
        raise ValueError(f"cannot have {filters}")
    return Joining(filters, in_channels, classes)


def nothing(filters, in_channels, classes):
    return None


def idle(filters, in_channels, classes):
    return nn.Flatten()


def lazy(filters, in_channels, classes):
    return nn.Sequential(nn.Conv2d(in_channels, filters[0], 3), nn.Flatten(), nn.LazyLinear(classes))


def first_only(filters, in_channels, classes):
    return Joining((filters[0], 8), in_channels, classes)


def half_used(filters, in_channels, classes):
    return Joining((filters[0], filters[1] // 2), in_channels, classes)


def narrow(filters, in_channels, classes):
    return Joining(filters, in_channels, classes - 1)


def several(filters, in_channels, classes):
    class Several(Joining):
        def forward(self, images):
            return super().forward(images), None

    return Several(filters, in_channels, classes)
"""
SCHEDULE = FilterSchedule((8, 16))
_NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def package(monkeypatch, tmp_path):
    """`own.networks`, importable from the current folder and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").touch()
    (tmp_path / "own" / "networks.py").write_text(_SOURCE)
    yield tmp_path
    for name in ("own.networks", "own"):
        sys.modules.pop(name, None)


def of(function):
    return NetworkConfig(family="factory", factory=f"own.networks:{function}")


def test_what_the_function_returns_is_built_and_priced(package):
    network = build(of("joining"), SCHEDULE, 3, 5)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    costs = price(of("joining"), SCHEDULE, (3, 8, 8), 5, 4)
    assert costs.params == sum(p.numel() for p in network.parameters())
    assert costs.macs == 64 * 9 * (3 * 8 + 8 * 16) + 24 * 5
    assert costs.activations == 64 * 24


@pytest.mark.parametrize(("function", "multiple"), [("joining", 1), ("rated", 2), ("dropping", 4), ("rounding", 8)])
def test_its_costs_are_known_for_a_whole_space(package, function, multiple):
    model = fit_cost_model(of(function), (3, 8, 8), 5, 4, multiple=multiple, stages=2, size=10**6)
    assert isinstance(model, FittedCostModel)
    assert model.costs(FilterSchedule((24, 24))) == price(of(function), FilterSchedule((24, 24)), (3, 8, 8), 5, 4)


@pytest.mark.parametrize("ranges", [((16, 128), (30, 32)), ((16, 17), (30, 31)), ((100, 128), (32, 32))])
def test_it_need_not_make_what_lies_outside_the_space(package, ranges):
    model = fit_cost_model(of("particular"), (3, 8, 8), 5, 4, multiple=1, stages=2, size=10**6, ranges=ranges)
    assert isinstance(model, FittedCostModel)
    rng = np.random.default_rng(0)
    for filters in [*zip(*ranges, strict=True), *(rng.integers(*np.array(ranges).T, endpoint=True) for _ in range(5))]:
        schedule = FilterSchedule(tuple(map(int, filters)))
        assert model.costs(schedule) == price(of("particular"), schedule, (3, 8, 8), 5, 4)
    assert model.costs(FilterSchedule((400, 32))).params > model.costs(FilterSchedule((128, 32))).params


@pytest.mark.parametrize("size", [10**6, 9])
def test_a_stage_whose_filters_it_does_not_use_is_refused(package, size):
    ranges = ((8, 64), (16, 32))
    with pytest.raises(ConfigError, match=r"the filters of stage 2, from 16 to 32; does .*:first_only use them\?"):
        fit_cost_model(of("first_only"), (3, 8, 8), 5, 4, multiple=1, stages=2, size=size, ranges=ranges)
    single = ((8, 64), (16, 16))  # a stage of one number of filters has nothing to change
    assert fit_cost_model(of("first_only"), (3, 8, 8), 5, 4, multiple=1, stages=2, size=57, ranges=single)


@pytest.mark.parametrize("function", ["rounding", "half_used"])
def test_a_small_space_of_uneven_costs_is_built(package, function):
    ranges = ((8, 20), (8, 20))
    model = fit_cost_model(of(function), (3, 8, 8), 5, 4, multiple=1, stages=2, size=169, ranges=ranges)
    assert isinstance(model, BuiltCostModel)


def test_rules_may_ask_for_what_only_builds_could_price(package):
    space = ((16, 128), (30, 32))
    model = BuiltCostModel(of("particular"), (3, 8, 8), 5, 4, space)
    assert model.costs(FilterSchedule((1, 1))) == model.costs(FilterSchedule((16, 30)))
    assert not Budget("params", LARGEST_LIMIT).admits(model.costs(FilterSchedule((129, 30))))
    with pytest.raises(ConfigError, match="KeyError"):
        BuiltCostModel(of("failing"), (3, 8, 8), 5, 4, space).costs(FilterSchedule((16, 30)))


def test_rounding_of_its_own_is_refused_where_it_would_not_build_what_is_proposed(package):
    with pytest.raises(ConfigError, match=r"family factory .* set filters\.multiple to 8"):
        fit_cost_model(of("rounding"), (3, 8, 8), 5, 4, multiple=1, stages=2, size=10**6)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "failing",
            r"own.networks:failing failed \(KeyError: 'width'\) when called with \(\(8, 16\), 3, 5\); mend it",
        ),
        ("nothing", "own.networks:nothing returned a NoneType for 8-16; it must return an nn.Module"),
        ("idle", "own.networks:idle returned a module without parameters to train for 8-16"),
        ("lazy", r"lazy returned uninitialised parameters for 8-16 \(in LazyLinear\); .* give its sizes"),
        ("narrow", r"made shape \(4, 4\) of 4 images of 3x8x8; it must give logits of shape \(4, 5\), one for each"),
        ("several", r"made a tuple of 4 images of 3x8x8; it must give logits"),
        ("reading", r"failed on images of 3x8x8 \(.*\); it must take them, and make nothing depend on their values"),
        ("missing", "has no missing"),
    ],
)
def test_what_cannot_be_trained_is_refused(package, function, said):
    with pytest.raises(ConfigError, match=said):
        price(of(function), SCHEDULE, (3, 8, 8), 5, 4)


def test_pricing_leaves_the_global_generator_alone(package):
    before = torch.get_rng_state()
    price(of("rated"), SCHEDULE, (3, 8, 8), 5, 4)
    assert torch.equal(before, torch.get_rng_state())


def test_an_exported_model_imports_the_function(package):
    plan = make_plan(network=of("joining").model_dump(exclude_defaults=True))
    splits = Splits(plan.data, plan.config.data)
    made = Provenance(plan.config, plan.data, splits, FilterSchedule((8, 8, 8)), 5, Fidelity(1))
    (package / "model.py").write_text(model_source(made))
    reader = (
        "from model import build; import sys, torch; "
        "assert build()(torch.zeros(2, 1, 8, 8)).shape == (2, 4); assert 'search' not in sys.modules"
    )
    # not isolated (-I): the user's own package has to be found
    subprocess.run([sys.executable, "-c", reader], cwd=package, check=True, env={"PYTHONPATH": str(package)})


def images():
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (48, 3, 16, 16)).astype(np.uint8), np.arange(48) % 3, 3, "noise")


@pytest.mark.integration
@pytest.mark.parametrize("name", [*FAMILIES, "joining", "dropping"])
def test_every_family_trains(package, name):
    network = NetworkConfig(**FAMILIES[name]) if name in FAMILIES else of(name)
    schedule = FilterSchedule((8, 16, 8))
    data = images()
    splits = Splits(data, DataConfig())
    evaluate = TrainingEvaluator(network, TrainingConfig(batch_size=8), data, splits, torch.device("cpu"))
    runs = evaluate(schedule, [1, 2], Fidelity(1), "validation", keep_weights=True)
    for run in runs:
        assert np.isfinite(run.loss)
        built = build(network, schedule, 3, 3).eval()
        built.load_state_dict(run.weights)
        split = splits.train_validation(run.seed)
        mean, deviation = (torch.from_numpy(moment)[:, None, None] for moment in data.normalisation(split.training))
        logits = built((torch.from_numpy(data.images[split.validation]) - mean) / deviation)
        assert (logits.argmax(1).numpy() == data.labels[split.validation]).mean() == pytest.approx(run.accuracy)
    numbers = activity.of_run(network, schedule, runs[0], data, splits.train_validation(1))
    assert len(numbers) == (3 if name in FAMILIES else 0)


@pytest.mark.integration
@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_what_a_view_needs_is_there(package, seeds):
    """`view` takes contiguous tensors only, alone and among others."""
    data = images()
    recipe, splits = TrainingConfig(batch_size=8), Splits(data, DataConfig())
    runs = TrainingEvaluator(of("viewing"), recipe, data, splits, torch.device("cpu"))(
        SCHEDULE, seeds, Fidelity(1), "validation"
    )
    assert all(np.isfinite(run.loss) for run in runs)


@pytest.mark.integration
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NEEDS_GPU])])
def test_what_a_network_draws_is_settled_by_the_seed_alone(package, device):
    data, where = images(), choose_device(device)
    evaluate = TrainingEvaluator(of("dropping"), TrainingConfig(batch_size=8), data, Splits(data, DataConfig()), where)

    def losses(*seeds, on_epoch=None):
        return [run.loss for run in evaluate(SCHEDULE, seeds, Fidelity(3), "validation", on_epoch)]

    def generators():
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device == "cuda" else [])]

    torch.manual_seed(1)
    before = generators()
    (first,) = losses(1)
    assert all(map(torch.equal, before, generators()))
    torch.manual_seed(2)
    assert losses(1) == [first]
    assert losses(1, on_epoch=lambda *_: False) == [first]
    assert losses(2, 1)[1] == pytest.approx(first, rel=1e-5)
    assert losses(2)[0] != first


@pytest.mark.integration
def test_a_network_that_fails_in_training_is_refused_before_the_study_starts(package):
    said = (
        r"factory own\.networks:breaking failed when trained as .* on images of 1x8x8 \(LookupError: no such layer\)"
    )
    with pytest.raises(ConfigError, match=said):
        forecast(make_plan(network=of("breaking").model_dump(exclude_defaults=True)))
