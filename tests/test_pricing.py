import functools
import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
import torch
from families import FAMILIES, MEMBERS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torchvision import models

from search import metering
from search.config import StudyConfig
from search.cost import COST_NAMES
from search.errors import ConfigError
from search.metering import price
from search.networkconfig import NetworkConfig
from search.networks import build
from search.plan import make_plan
from search.polynomials import FittedCostModel
from search.pricing import BuiltCostModel, fit_cost_model
from search.schedule import FilterSchedule

DIGITS = (1, 8, 8)
schedules = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(lambda f: FilterSchedule(tuple(f)))


@pytest.fixture(scope="module")
def digits_model():
    return fit_cost_model(NetworkConfig(), DIGITS, 10, 64, multiple=1, stages=3, size=9)


@pytest.mark.parametrize(
    ("text", "cost", "value"),
    [
        ("4-7-15", "params", 1445),
        ("8-8-8", "params", 1362),
        ("6-8-11", "params", 1448),
        ("4-9-18", "activations", 472),
        ("4-7-15", "macs", 10266),
    ],
)
def test_golden_costs_on_the_digits(digits_model, text, cost, value):
    assert digits_model.costs(FilterSchedule.parse(text))[cost] == value


@settings(max_examples=25, deadline=None)
@given(schedule=schedules, blocks=st.integers(1, 2), channels=st.integers(1, 3), classes=st.integers(2, 12))
def test_costs_equal_the_built_networks_own_and_the_formula(schedule, blocks, channels, classes):
    network = NetworkConfig(blocks_per_stage=blocks)
    costs = price(network, schedule, (channels, 8, 12), classes, 4)
    real = build(network, schedule, channels, classes)
    assert costs.params == sum(p.numel() for p in real.parameters())
    macs, activations, before = 0, 0, channels
    for stage, filters in enumerate(schedule.filters):
        pixels = (8 >> stage) * (12 >> stage)
        for _ in range(blocks):
            macs += 9 * before * filters * pixels
            activations += filters * pixels
            before = filters
    assert costs.macs == macs + before * classes
    assert costs.activations == activations


GOLDEN = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "mobilenet_v2": models.MobileNet_V2_Weights.IMAGENET1K_V1,
    "regnet_x_400mf": models.RegNet_X_400MF_Weights.IMAGENET1K_V1,
    "regnet_y_400mf": models.RegNet_Y_400MF_Weights.IMAGENET1K_V1,
}
"""What torchvision publishes of its models with their weights: parameters, and 10^9 MACs to three decimals."""


@pytest.mark.parametrize("name", GOLDEN)
def test_standard_members_cost_what_torchvision_publishes(name):
    network, filters = MEMBERS[name]
    costs = price(NetworkConfig(**network, stem="large"), FilterSchedule(filters), (3, 224, 224), 1000, 2)
    published = GOLDEN[name].meta
    assert costs.params == published["num_params"]
    assert round(costs.macs / 1e9, 3) == pytest.approx(published["_ops"], abs=1e-9)


# Activations in 10^6 as Radosavovic 2020 (2003.13678) lists them; its RegNetX-400MF ends in 384, torchvision's in 400.
@pytest.mark.parametrize(
    ("name", "filters", "millions"),
    [("resnet50", MEMBERS["resnet50"][1], 11.1), ("regnet_x_400mf", (32, 64, 160, 384), 3.1)],
)
def test_activations_are_counted_as_pycls_counts_them(name, filters, millions):
    network, _ = MEMBERS[name]
    costs = price(NetworkConfig(**network, stem="large"), FilterSchedule(filters), (3, 224, 224), 1000, 2)
    assert round(costs.activations / 1e6, 1) == millions


def test_a_plain_network_of_several_blocks_costs_what_vgg_costs_without_its_hidden_layers():
    network = NetworkConfig(blocks_per_stage=(1, 1, 2, 2, 2))
    costs = price(network, FilterSchedule((64, 128, 256, 512, 512)), (3, 224, 224), 1000, 2)
    vgg = models.vgg11_bn(init_weights=False)
    features = sum(weight.numel() for weight in vgg.features.parameters())
    biases = sum(layer.out_channels for layer in vgg.features if isinstance(layer, nn.Conv2d))
    assert costs.params == features - biases + 513 * 1000
    hidden = 25_088 * 4096 + 4096 * 4096 + 4096 * 1000
    published = models.VGG11_BN_Weights.IMAGENET1K_V1.meta["_ops"]
    assert (costs.macs - 512_000 + hidden) / 1e9 == pytest.approx(published, abs=5e-4)


def own_counts(network, image):
    """MACs and activations of a real network, by hooks and the formulas of its layers."""
    macs, activations = [], []

    def count(layer, given, output):
        if isinstance(layer, nn.Conv2d):
            inputs = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
            activations.append(output.numel())
            macs.append(output.numel() * inputs)
        elif isinstance(layer, nn.Linear):
            macs.append(output.numel() * layer.in_features)

    for layer in network.modules():
        layer.register_forward_hook(count)
    network.eval()(image)
    return sum(macs), sum(activations)


@functools.cache
def family_model(family):
    return fit_cost_model(NetworkConfig(**FAMILIES[family]), (3, 20, 16), 7, 4, multiple=8, stages=3, size=10**6)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=4, deadline=None)
@given(multiples=st.lists(st.integers(1, 6), min_size=3, max_size=3))
@example(multiples=[2, 2, 2])
@example(multiples=[1, 1, 3])
def test_costs_of_every_family_are_its_own_for_any_schedule(family, multiples):
    model, network = family_model(family), NetworkConfig(**FAMILIES[family])
    assert isinstance(model, FittedCostModel)
    schedule = FilterSchedule(tuple(8 * m for m in multiples))
    real = build(network, schedule, 3, 7)
    macs, activations = own_counts(real, torch.zeros(1, 3, 20, 16))
    costs = model.costs(schedule)
    assert (costs.params, costs.macs, costs.activations) == (
        sum(p.numel() for p in real.parameters()),
        macs,
        activations,
    )
    assert costs == price(network, schedule, (3, 20, 16), 7, 4)
    assert all(model.table(np.array([schedule.filters]), cost)[0] == costs[cost] for cost in COST_NAMES)


def test_a_shortcut_between_equal_filters_has_no_projection_and_is_priced_so():
    model = family_model("shortcuts")
    assert {(e.stage, e.other, e.filters) for e in model.equalities} == {(0, 1, None), (0, None, 16)}
    filters = np.array(list(itertools.product((8, 16, 24), repeat=3)))
    for cost in COST_NAMES:
        rows = [FilterSchedule(tuple(map(int, row))) for row in filters]
        assert model.table(filters, cost).tolist() == [model.costs(row)[cost] for row in rows]
    projected = [model.costs(FilterSchedule((f, 64, 64))).params for f in (8, 24, 16)]
    # a line through the projected ones lies above the one that adds its input as it stands
    assert projected[2] < (projected[0] + projected[1]) / 2 - 16 * 16


def test_filters_off_the_units_of_the_polynomials_are_built():
    model = fit_cost_model(NetworkConfig(family="bottleneck"), (3, 8, 8), 7, 4, multiple=8, stages=1, size=9)
    expected = price(NetworkConfig(family="bottleneck"), FilterSchedule((12,)), (3, 8, 8), 7, 4)
    assert model.costs(FilterSchedule((12,))) == expected
    assert model.table(np.array([[12], [16]]), "params")[0] == expected.params


@settings(max_examples=10, deadline=None)
@given(schedule=schedules, batch=st.integers(2, 64))
def test_memory_is_what_autograd_keeps_on_a_real_network(schedule, batch):
    network = build(NetworkConfig(), schedule, 1, 10)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    images = torch.zeros(batch, *DIGITS)
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        functional.cross_entropy(network(images), torch.zeros(batch, dtype=torch.long))
    keep(images)
    weights = sum(p.nbytes for p in network.parameters())
    optimiser = torch.optim.AdamW(network.parameters())
    network(images).sum().backward()
    optimiser.step()
    moments = sum(v.nbytes for s in optimiser.state.values() for name, v in s.items() if name.startswith("exp_avg"))
    gradients = sum(p.grad.nbytes for p in network.parameters())
    buffers = sum(b.nbytes for b in network.buffers())
    saved = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)
    predicted = price(NetworkConfig(), schedule, DIGITS, 10, batch).memory
    assert predicted == weights + gradients + moments + buffers + saved


@pytest.mark.parametrize("multiple", [1, 3, 8])
def test_fitted_model_agrees_with_builds(multiple):
    network, shape, classes, batch = NetworkConfig(blocks_per_stage=2), (3, 10, 10), 7, 16
    fitted = fit_cost_model(network, shape, classes, batch, multiple=multiple, stages=2, size=9)
    assert isinstance(fitted, FittedCostModel)
    for filters in np.random.default_rng(1).integers(1, 200, (5, 2)):
        schedule = FilterSchedule(tuple(int(f) for f in filters))  # of no multiple: whole coefficients price any size
        assert fitted.costs(schedule) == price(network, schedule, shape, classes, batch)


def test_fitted_model_prices_a_space_at_once(digits_model):
    filters = np.random.default_rng(0).integers(1, 64, (50, 3))
    for cost in ("params", "macs", "activations", "memory"):
        one_by_one = [digits_model.costs(FilterSchedule(tuple(map(int, row))))[cost] for row in filters]
        assert digits_model.table(filters, cost).tolist() == one_by_one


def test_absurd_sizes_are_priced_exactly_with_nothing_allocated(digits_model):
    f = 2**30 - 1
    tracemalloc.start()
    started = time.perf_counter()
    costs = digits_model.costs(FilterSchedule((f, f, f)))
    assert time.perf_counter() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert costs.params == 9 * f + 2 * 9 * f * f + 3 * 2 * f + 10 * f + 10


def halves(filters):
    return max(1, filters // 2)  # agrees with a constant at 1, 2 and 3 filters, with no polynomial beyond


def triangle(filters):
    return filters * (filters + 1) // 2  # a polynomial, but with coefficients that are not whole


@pytest.mark.parametrize("width", [halves, triangle])
def test_a_family_without_whole_polynomials_is_built_and_remembered(monkeypatch, width):
    builds = []

    def odd_build(_, schedule, channels, classes):
        builds.append(schedule)
        hidden = width(schedule.filters[0])
        return nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes)
        )

    monkeypatch.setattr(metering, "build", odd_build)
    model = fit_cost_model(NetworkConfig(), DIGITS, 9, 64, multiple=1, stages=1, size=9)
    assert isinstance(model, BuiltCostModel)
    schedule = FilterSchedule((77,))
    expected = (2 + 9) * width(77) + 9
    assert [model.costs(schedule).params for _ in range(3)] == [expected] * 3
    assert model.table(np.array([[77], [78]]), "params")[0] == expected
    assert builds.count(schedule) == 1


def thirds(filters):
    return filters // 3  # follows no power of two


def test_a_space_too_large_to_be_built_is_refused_with_the_multiple_at_which_it_need_not_be(monkeypatch):
    def odd_build(width):
        def build(_, schedule, channels, classes):
            hidden = max(1, width(schedule.filters[0]))
            return nn.Sequential(
                nn.Conv2d(channels, hidden, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes)
            )

        return build

    monkeypatch.setattr(metering, "build", odd_build(lambda filters: (filters + 4) // 8 * 8))
    with pytest.raises(ConfigError, match=r"multiple 1, so each of the 501 .* set filters.multiple to 8, at which"):
        fit_cost_model(NetworkConfig(), DIGITS, 9, 64, multiple=1, stages=1, size=501)
    assert isinstance(fit_cost_model(NetworkConfig(), DIGITS, 9, 64, multiple=8, stages=1, size=9999), FittedCostModel)
    monkeypatch.setattr(metering, "build", odd_build(thirds))
    with pytest.raises(ConfigError, match=r"for its price; narrow filters.stages to at most 500 schedules"):
        fit_cost_model(NetworkConfig(), DIGITS, 9, 64, multiple=1, stages=1, size=501)


def test_costs_that_turn_only_far_up_the_ranges_are_noticed(monkeypatch):
    def capped_build(_, schedule, channels, classes):
        hidden = min(96, schedule.filters[0])
        return nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes)
        )

    monkeypatch.setattr(metering, "build", capped_build)
    smooth = fit_cost_model(NetworkConfig(), DIGITS, 9, 64, 1, stages=1, size=96, ranges=((1, 96),))
    assert isinstance(smooth, FittedCostModel)
    model = fit_cost_model(NetworkConfig(), DIGITS, 9, 64, 1, stages=1, size=400, ranges=((1, 400),))
    assert isinstance(model, BuiltCostModel)
    assert model.costs(FilterSchedule((300,))).params == 11 * 96 + 9
    with pytest.raises(ConfigError, match="each of the 501 schedules would have to be built"):
        fit_cost_model(NetworkConfig(), DIGITS, 9, 64, 1, stages=1, size=501, ranges=((1, 501),))


def test_ranges_beyond_what_can_be_built_are_priced_for_a_family_of_known_form():
    ranges = ((2, 40), (1, 2**40))
    model = fit_cost_model(NetworkConfig(), DIGITS, 10, 64, 1, stages=2, size=39 * 2**40, ranges=ranges)
    f = 2**40
    assert model.costs(FilterSchedule((40, f))).params == 9 * 40 + 9 * 40 * f + 2 * (40 + f) + 10 * f + 10


def test_filters_the_family_cannot_have_are_refused_with_the_multiple_it_needs():
    with pytest.raises(ConfigError, match=r"set filters\.multiple to 24"):
        fit_cost_model(NetworkConfig(family="regnet"), DIGITS, 10, 64, multiple=6, stages=3, size=9)


def test_a_study_of_such_filters_is_refused_before_anything_is_trained():
    with pytest.raises(ConfigError, match=r"filters.multiple 1: family bottleneck needs .* multiples of 4, since its"):
        make_plan(StudyConfig.model_validate({"network": {"family": "bottleneck"}}))


def test_building_absurd_sizes_is_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=r"1073741823-1 needs tensors of up to [0-9,]{20,} numbers; .* lower"):
        price(NetworkConfig(), FilterSchedule((2**30 - 1, 1)), DIGITS, 10, 64)


def test_largest_size_allowed_is_built_without_overflow():
    costs = price(NetworkConfig(), FilterSchedule((2**26, 2**26)), DIGITS, 10, 2)
    assert costs.params > 9 * 2**52


def test_stages_beyond_the_image_are_refused():
    with pytest.raises(ConfigError, match="5 stages on images of 8x8"):
        fit_cost_model(NetworkConfig(), DIGITS, 10, 64, multiple=1, stages=5, size=9)
