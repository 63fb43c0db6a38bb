import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from search import pricing
from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import build
from search.polynomials import FittedCostModel
from search.pricing import BuiltCostModel, fit_cost_model, price
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

    monkeypatch.setattr(pricing, "build", odd_build)
    model = fit_cost_model(NetworkConfig(), DIGITS, 9, 64, multiple=1, stages=1, size=9)
    assert isinstance(model, BuiltCostModel)
    schedule = FilterSchedule((77,))
    expected = (2 + 9) * width(77) + 9
    assert [model.costs(schedule).params for _ in range(3)] == [expected] * 3
    assert model.table(np.array([[77], [78]]), "params")[0] == expected
    assert builds.count(schedule) == 1


def test_building_absurd_sizes_is_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=r"1073741823-1 needs tensors of up to [0-9,]{20,} numbers; .* lower"):
        price(NetworkConfig(), FilterSchedule((2**30 - 1, 1)), DIGITS, 10, 64)


def test_largest_size_allowed_is_built_without_overflow():
    costs = price(NetworkConfig(), FilterSchedule((2**26, 2**26)), DIGITS, 10, 2)
    assert costs.params > 9 * 2**52


def test_stages_beyond_the_image_are_refused():
    with pytest.raises(ConfigError, match="5 stages on images of 8x8"):
        fit_cost_model(NetworkConfig(), DIGITS, 10, 64, multiple=1, stages=5, size=9)
