import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from search.channelwise import keeps_channels_apart


class Small(nn.Module):
    """Layers for forward passes of every kind; maps of 4 channels."""

    def __init__(self, through):
        super().__init__()
        self.through = through
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 1, 1)
        self.twice = nn.Linear(8, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        return self.through(self, images)


def pooled(features):
    return functional.adaptive_avg_pool2d(features, 1)


APART = {
    "relu, max_pool2d, view": lambda own, x: own.head(
        pooled(functional.max_pool2d(functional.relu(own.conv(x)), 2)).view(x.size(0), -1)
    ),
    "reshape by shape": lambda own, x: own.head(pooled(own.conv(x)).reshape(x.shape[0], -1)),
    "mean over pixels": lambda own, x: own.head(own.conv(x).mean([2, 3])),
    "mean kept and multiplied": lambda own, x: own.head(
        pooled(own.conv(x) * torch.sigmoid(own.conv(x).mean((-1, -2), keepdim=True))).flatten(1)
    ),
    "sum": lambda own, x: own.head(torch.flatten(pooled(own.conv(x) + 2 * own.conv(x) + 1.0), 1)),
}


@pytest.mark.parametrize("through", APART.values(), ids=APART)
def test_what_leaves_channels_apart_is_recognised(through):
    Small(through)(torch.zeros(2, 2, 6, 6))
    assert keeps_channels_apart(Small(through))


def in_training_only(own, images):
    features = own.conv(images)
    return own.head(pooled(features.flip(1) if own.training else features).flatten(1))


def in_evaluation_only(own, images):
    features = own.conv(images)
    return own.head(pooled(features if own.training else features.flip(1)).flatten(1))


MIXING = {
    "images reordered": lambda own, x: own.head(pooled(own.conv(x.flip(1))).flatten(1)),
    "joined": lambda own, x: own.twice(pooled(torch.cat([own.conv(x), own.conv(x)], 1)).flatten(1)),
    "joined vectors": lambda own, x: own.twice(torch.cat(2 * [own.conv(x).mean((2, 3))], 1)),
    "mean over channels": lambda own, x: own.head(pooled(own.conv(x) * own.conv(x).mean(1, True)).flatten(1)),
    "one channel spread over all": lambda own, x: own.head(
        pooled(own.conv(x) * torch.sigmoid(own.one(own.conv(x)))).flatten(1)
    ),
    "softmax": lambda own, x: own.head(torch.softmax(own.conv(x).mean((2, 3)), 1)),
    "dropout": lambda own, x: own.head(functional.dropout(own.conv(x).mean((2, 3)), 0.5, own.training)),
    "flattened from the batch on": lambda own, x: own.head(own.conv(x).mean((2, 3)).flatten(0).view(-1, 4)),
    "linear over width": lambda own, x: own.head(functional.adaptive_avg_pool2d(own.conv(x), (4, 4))).mean((2, 3)),
    "depends on values": lambda own, x: own.head(own.conv(x).mean((2, 3))) if x.sum() > 0 else None,
    "in training only": in_training_only,
    "in evaluation only": in_evaluation_only,
}


@pytest.mark.parametrize("through", MIXING.values(), ids=MIXING)
def test_what_may_mix_channels_or_draws_counts_as_mixing(through):
    assert not keeps_channels_apart(Small(through))


def test_a_hook_that_may_do_anything_counts_as_mixing():
    network = Small(APART["mean over pixels"])
    network.conv.register_forward_hook(lambda layer, given, features: features.flip(1))
    assert not keeps_channels_apart(network)


@pytest.mark.parametrize(("name", "apart"), [("resnet18", True), ("regnet_y_400mf", True), ("densenet121", False)])
def test_published_networks(name, apart):
    network = models.get_model(name)
    assert keeps_channels_apart(network) is apart


def test_the_network_and_the_global_generator_stay_as_they_are():
    network = Small(lambda own, x: own.head(own.conv(x + torch.rand(1)).mean((2, 3))))
    network.conv.eval()
    before = torch.get_rng_state()
    assert not keeps_channels_apart(network)
    assert torch.equal(before, torch.get_rng_state())
    assert network.training
    assert not network.conv.training
