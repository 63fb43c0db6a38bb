"""Predicted training memory against accounts of a training step that share nothing with the prediction."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional

from search.data import ImageData
from search.dataconfig import DataConfig
from search.evaluate import Fidelity
from search.metering import price
from search.networkconfig import NetworkConfig
from search.networks import build
from search.schedule import FilterSchedule
from search.splits import Splits
from search.stepmemory import ALLOWANCE, step_memory
from search.training import TrainingEvaluator
from search.trainingconfig import TrainingConfig

MIB = 2**20


def tracked_peak(network, schedule, shape, batch):
    """Bytes that torch's own tracker sees alive at the peak of two training steps, the second with moments."""
    with FakeTensorMode():
        built = build(network, schedule, shape[0], 10)
        optimiser = torch.optim.AdamW(built.parameters(), fused=True)
        tracker = MemTracker()
        tracker.track_external(built, optimiser)
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                images, labels = torch.empty(batch, *shape), torch.empty(batch, dtype=torch.long)
                loss = functional.cross_entropy(built(images), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


SIZES = [
    ((64, 64, 64), (3, 32, 32), 128),
    ((256, 64, 16), (3, 32, 32), 256),  # the first stage holds nearly all
]


@pytest.mark.parametrize(("filters", "shape", "batch"), SIZES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_predicted_within_10_percent_or_16_mib(family, filters, shape, batch):
    network, schedule = NetworkConfig(**FAMILIES[family]), FilterSchedule(filters)
    predicted = price(network, schedule, shape, 10, batch).memory
    peak = tracked_peak(network, schedule, shape, batch)
    assert abs(predicted - peak) <= max(0.1 * peak, 16 * MIB)
    assert predicted <= 1.001 * peak


def test_a_backward_pass_that_holds_far_more_than_the_forward_pass_left_is_the_peak():
    network = build(NetworkConfig(), FilterSchedule((32,)), 3, 10).to("meta")
    moments = step_memory(network, torch.empty(128, 3, 32, 32, device="meta"))
    activations = 128 * 32 * 32 * 32 * 4
    # outputs of convolution and norm when the forward pass ends; of the backward pass, their gradients besides
    assert moments[0] == pytest.approx(2 * activations, rel=0.06)
    assert moments.max() + ALLOWANCE == pytest.approx(4 * activations, rel=0.03)


def test_small_networks_are_priced_by_what_the_forward_pass_leaves():
    network = build(NetworkConfig(), FilterSchedule((4, 7, 15)), 1, 10).to("meta")
    moments = step_memory(network, torch.empty(64, 1, 8, 8, device="meta"))
    assert moments.max() == moments[0]


def test_what_only_views_weights_or_images_is_not_counted():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(64, 10, device="meta"))

        def forward(self, images):
            return images.flatten(1) @ self.weight.t().t()

    moments = step_memory(Views(), torch.empty(2**20, 1, 8, 8, device="meta"))
    batch, labels, logits, weights = (4 * 64 * 2**20, 8 * 2**20, 40 * 2**20, 4 * 640)
    assert moments[1] + ALLOWANCE == batch + labels + 4 * weights
    assert moments.max() + ALLOWANCE < batch + labels + 4 * logits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("filters", "side", "batch"), [((16, 32, 64), 32, 128), ((64, 64, 64), 64, 256)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_memory_measured_on_the_gpu_is_as_predicted(family, filters, side, batch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1024, 3, side, side)).astype(np.uint8)
    data = ImageData(images, np.arange(1024) % 10, 10, "noise")
    network, schedule = NetworkConfig(**FAMILIES[family]), FilterSchedule(filters)
    recipe, device = TrainingConfig(batch_size=batch), torch.device("cuda", torch.cuda.current_device())
    evaluate = TrainingEvaluator(network, recipe, data, Splits(data, DataConfig()), device)
    evaluate(FilterSchedule((8, 8, 8)), [1], Fidelity(1), "validation")  # what libraries allocate once
    (run,) = evaluate(schedule, [1], Fidelity(1), "validation")
    predicted = price(network, schedule, data.image_shape, 10, batch).memory
    assert abs(predicted - run.peak_bytes) <= max(0.1 * run.peak_bytes, 16 * MIB)
