from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional

from search import networks
from search import replicas as module
from search.networkconfig import NetworkConfig
from search.networks.plain import PlainNetwork
from search.replicas import FusedReplicas, SeparateReplicas, fuse
from search.schedule import FilterSchedule

COUNT = 3


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Networks this small only wait for further threads, all the more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain():
    return PlainNetwork((3, 4), 2, 5, (2, 2))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)

    def forward(self, features):
        return features + self.inner(features)


def assorted():
    """Every other kind of layer that can be fused, in unusual settings."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(2, 4, (3, 1), stride=2, padding=1, dilation=2, padding_mode="circular"),
            norm=nn.BatchNorm2d(4, momentum=0.3, affine=False),
            residual=Residual(),
            pool=nn.AvgPool2d(2),
            identity=nn.Identity(),
            flatten=nn.Flatten(),
            hidden=nn.Linear(8, 6, bias=False),
            relu=nn.Hardswish(),
            head=nn.Linear(6, 5),
        )
    )


def make(build, count=COUNT):
    built = []
    with torch.random.fork_rng():
        for seed in range(count):
            torch.manual_seed(seed)
            built.append(build().double())  # in double precision rounding cannot hide a difference
    return built


def batches(steps=4, count=COUNT):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(8, count, 2, 6, 6, generator=generator, dtype=torch.double),
            torch.randint(5, (8, count), generator=generator),
        )
        for _ in range(steps)
    ]


def train(network, data):
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05)
    for images, labels in data:
        logits = network(images)
        loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten()) * labels[0].numel()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def largest_difference(build, replicas):
    """Largest difference in any weight or buffer between training as replicas and training one by one."""
    data = batches()
    train(replicas, data)
    worst = 0.0
    for k, network in enumerate(make(build)):
        train(network, [(images[:, k], labels[:, k]) for images, labels in data])
        together, alone = replicas.state_dict_of(k), network.state_dict()
        assert list(together) == list(alone)
        for name, tensor in alone.items():
            assert together[name].shape == tensor.shape
            worst = max(worst, float((together[name] - tensor).abs().max()))
    return worst


FAMILIES = {
    "large stem": {"stem": "large"},
    "residual": {"family": "residual", "blocks_per_stage": 2},
    "bottleneck": {"family": "bottleneck"},
    "regnet": {"family": "regnet", "group_width": 4, "squeeze_excite": True},
    "inverted": {"family": "inverted", "expansion": 2, "head_filters": 6, "squeeze_excite": True},
}


@pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES)
def test_every_family_trains_fused_as_alone(network):
    def of_family():
        return networks.build(NetworkConfig(**network), FilterSchedule((4, 8)), 2, 5)

    replicas = fuse(make(of_family))
    assert isinstance(replicas, FusedReplicas)
    # one step: AdamW divides by gradients, and where those are zero but for rounding, by that
    (images, labels) = batches(1)[0]
    functional.cross_entropy(replicas(images).flatten(0, 1), labels.flatten(), reduction="sum").backward()
    gradients = [weight.grad.chunk(COUNT) for weight in replicas.parameters()]
    for k, alone in enumerate(make(of_family)):
        functional.cross_entropy(alone(images[:, k]), labels[:, k], reduction="sum").backward()
        for together, weight in zip(gradients, alone.parameters(), strict=True):
            torch.testing.assert_close(together[k], weight.grad, rtol=1e-8, atol=1e-10)
        for name, tensor in replicas.state_dict_of(k).items():
            torch.testing.assert_close(tensor, alone.state_dict()[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(replicas.eval()(images)[:, k], alone.eval()(images[:, k]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("build", [plain, assorted])
def test_fused_replicas_train_as_they_do_alone(build):
    replicas = fuse(make(build))
    assert isinstance(replicas, FusedReplicas)
    assert largest_difference(build, replicas) < 1e-9


def test_separate_replicas_train_as_they_do_alone():
    assert largest_difference(plain, SeparateReplicas(make(plain))) < 1e-9


class Mixing(nn.Module):
    """Its own forward pass reorders channels, across replicas if it were fused."""

    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, images):
        return self.inner(images.flip(1))


def test_the_comparison_notices_replicas_that_interact(monkeypatch):
    assert fuse(make(Mixing)) is None
    monkeypatch.setattr(module, "keeps_channels_apart", lambda network: True)
    replicas = fuse(make(Mixing))
    assert largest_difference(Mixing, replicas) > 1e-3


def test_one_replica_is_the_network_itself():
    (network,) = make(plain, 1)
    replicas = fuse([network])
    images, _ = batches(1, 1)[0]
    torch.testing.assert_close(replicas.eval()(images)[:, 0], network.eval()(images[:, 0]), rtol=0, atol=1e-12)


def test_fusing_leaves_the_networks_and_the_global_generator_alone():
    alone = make(plain)
    before = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in alone]
    generator = torch.get_rng_state()
    train(fuse(alone), batches())
    assert torch.equal(torch.get_rng_state(), generator)
    for network, state in zip(alone, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def headed(*layers):
    return nn.Sequential(nn.Conv2d(2, 4, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


@pytest.mark.parametrize("unknown", [nn.LayerNorm(6), nn.Softmax(1), nn.Dropout(0.5)])
def test_layers_of_no_known_type_are_not_fused(unknown):
    assert fuse([headed(nn.Identity()) for _ in range(2)]) is not None
    assert fuse([headed(unknown) for _ in range(2)]) is None


def test_weights_outside_layers_are_not_fused():
    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(*headed())
            self.scale = nn.Parameter(torch.ones(4, 1, 1))

    assert fuse([Scaled(), Scaled()]) is None


def test_layers_that_share_weights_are_not_fused():
    class Tied(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(72, 5))
            self[1].weight = self[0].weight

    assert fuse(make(Tied)) is None


def test_networks_of_different_schedules_are_refused():
    with pytest.raises(ValueError, match="2 networks of different architecture"):
        fuse([PlainNetwork((3,), 1, 10, (1,)), PlainNetwork((4,), 1, 10, (1,))])


def test_a_replicas_weights_are_its_own_copy_in_plain_layout():
    replicas = fuse(make(plain)).to(memory_format=torch.channels_last)
    weights = replicas.state_dict_of(1)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in weights.values())
    weights["head.weight"].zero_()
    assert replicas.state_dict_of(1)["head.weight"].abs().sum() > 0
