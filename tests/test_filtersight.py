import numpy as np
import pytest
import torch
from torch import nn

from search import activity, filtersight
from search.filtersight import Field, NetworkSight, Unseen, look, receptive_fields
from search.networkconfig import NetworkConfig
from search.networks import build
from search.schedule import FilterSchedule

_EDGE = torch.tensor([[-1.0, 0.0, 1.0]] * 3)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _network(config, schedule, channels, seed=0):
    """A network with batch-norm statistics of no special value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(NetworkConfig(**config), FilterSchedule.parse(schedule), channels, 4)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                norm.weight.data.normal_()
    return network


def _planted():
    """A first filter for vertical edges, dark to bright; a second for a bright pixel, a third that is dead."""
    conv = nn.Conv2d(1, 3, 3, padding=1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
        conv.weight[0, 0] = _EDGE
        conv.weight[1, 0, 1, 1] = 1
    network = nn.Sequential()
    network.add_module("stage1", nn.Sequential(conv, nn.ReLU()))
    network.add_module("pool1", nn.MaxPool2d(2))
    network.add_module("stage2", nn.Sequential(nn.Conv2d(3, 2, 3, padding=1, bias=False), nn.ReLU()))
    return network


_MARKED = 14
_PLACES = tuple((2 + number % 4, 1 + number % 5) for number in range(_MARKED))


def _marked_images():
    """Some with a vertical edge of falling contrast at a known place, the others flat with a bright spot."""
    images = torch.zeros(20, 1, 8, 8)
    for number, (row, column) in enumerate(_PLACES):
        images[number, 0, row - 1 : row + 2, column + 1] = 2 - 0.1 * number
    images[_MARKED:, 0, 4, 4] = 3
    return images


def test_a_planted_edge_filter_picks_the_images_with_the_edge_at_its_place():
    sight = look(_planted(), _marked_images())
    (stage, _) = sight.stages
    assert stage.images[0].tolist() == list(range(9))  # contrast falls from image to image
    assert [tuple(place) for place in stage.places[0].tolist()] == list(_PLACES[:9])
    assert stage.responses[0] == pytest.approx([3 * (2 - 0.1 * number) for number in range(9)], rel=1e-5)
    assert set(stage.images[1].tolist()) >= set(range(_MARKED, 20))
    assert sight.kernels.shape == (3, 1, 3, 3)
    assert sight.kernels[0, 0].tolist() == _EDGE.tolist()


def test_patches_are_what_lies_around_the_response_and_say_what_is_beyond_the_image():
    images = _marked_images()
    images[0] = 0
    images[0, 0, :2, 0] = 5  # the brightest spot is in the corner
    stage = look(_planted(), images).stages[0]
    patch, inside = next(stage.patches(1, images.numpy()))
    assert patch.shape == (1, 3, 3)
    assert inside.tolist() == [[False] * 3, [False, True, True], [False, True, True]]
    assert patch[0].tolist() == [[0, 0, 0], [0, 5, 0], [0, 5, 0]]
    image, (row, column) = stage.images[0, 4], stage.places[0, 4]
    for number, (found, whole) in enumerate(stage.patches(0, images.numpy())):
        if number == 4:
            assert found[0].tolist() == images[image, 0, row - 1 : row + 2, column - 1 : column + 2].tolist()
            assert whole.all()


def test_a_filter_that_says_the_same_everywhere_is_dead_and_not_shown():
    stage = look(_planted(), _marked_images()).stages[0]
    assert stage.dead == 1
    assert 2 not in stage.evenly(8)
    assert stage.variances[2] == 0


def test_filters_are_shown_evenly_from_most_to_least_variance():
    network = _planted()
    network.stage1 = nn.Conv2d(1, 10, 1, bias=False)
    network.stage1.weight.data[:, 0, 0, 0] = torch.tensor([3.0, 9, 1, 7, 5, 10, 2, 8, 4, 6])
    network.stage2 = nn.Conv2d(10, 2, 1)
    stage = look(network, _random(6, 1, 8, 8)).stages[0]
    by_variance = [5, 1, 7, 3, 9, 4, 8, 0, 6, 2]
    assert stage.evenly(10) == by_variance
    assert stage.evenly(4) == [by_variance[place] for place in (0, 3, 6, 9)]
    assert stage.effective == pytest.approx(1)  # all of one input


_CLOSED = {  # size and start from sizes, strides and paddings, by hand
    "plain": ({}, "3-4-5", [(3, -1, 1), (8, -3, 2), (18, -7, 4)]),
    "vgg": ({"blocks_per_stage": 2}, "3-4-5", [(5, -2, 1), (14, -6, 2), (32, -14, 4)]),
    "plain with a large stem": ({"stem": "large"}, "3-4", [(19, -9, 4), (39, -17, 8)]),
    "residual": ({"family": "residual"}, "3-4-5", [(7, -3, 1), (13, -6, 2), (25, -12, 4)]),
    "bottleneck": ({"family": "bottleneck"}, "4-8", [(5, -2, 1), (7, -3, 2)]),
    "regnet": ({"family": "regnet", "squeeze_excite": True, "group_width": 4}, "4-8", [(5, -2, 1), (7, -3, 2)]),
    "inverted": (
        {"family": "inverted", "squeeze_excite": True, "kernel_size": 5, "expansion": 2.0},
        "3-4",
        [(7, -3, 1), (11, -5, 2)],
    ),
}


@pytest.mark.parametrize(("config", "schedule", "expected"), _CLOSED.values(), ids=_CLOSED)
def test_receptive_fields_are_those_of_the_closed_form(config, schedule, expected):
    network = _network(config, schedule, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fields = receptive_fields(network, (2, 41, 48))
    for (rows, columns), (size, start, step) in zip(fields, expected, strict=True):
        assert rows == columns == Field(size, start, step)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_receptive_field_is_at_most_the_image_on_each_axis():
    (first, second, third) = receptive_fields(_network({}, "3-4-5", 1), (1, 8, 20))
    assert first == (Field(3, -1, 1), Field(3, -1, 1))
    assert second == (Field(8), Field(8, -3, 2))
    assert third == (Field(8), Field(18, -7, 4))


@pytest.mark.parametrize("config", [{}, {"family": "residual"}, {"family": "regnet", "group_width": 1}])
def test_pixels_beyond_the_receptive_field_change_nothing_and_within_it_do(config):
    network = _network(config, "4-8", 1).eval()
    images = _random(1, 1, 24, 24)
    rows, columns = receptive_fields(network, (1, 24, 24))[1]
    (top, bottom), (left, right) = rows.of(5), columns.of(6)
    features = nn.Sequential(
        *(child for name, child in network.named_children() if name[:4] in ("stem", "stag", "pool"))
    )

    def unit(changed):
        with torch.no_grad():
            return features(changed)[0, :, 5, 6]

    outside = _random(1, 1, 24, 24, seed=1)
    outside[..., top:bottom, left:right] = images[..., top:bottom, left:right]
    assert torch.allclose(unit(outside), unit(images), atol=1e-5)
    edges = [(top, 12), (bottom - 1, 12), (10, left), (10, right - 1)]
    reached = []
    for row, column in edges:
        changed = images.clone()
        changed[..., row, column] += 50
        reached.append(not torch.allclose(unit(changed), unit(images), atol=1e-5))
    assert any(reached)


def test_effective_numbers_are_those_of_the_activity():
    network, images = _network({}, "5-7", 2), _random(300, 2, 8, 8)
    sight = look(network, images)
    expected = [activity.effective_number(each) for each in activity.stage_covariances(network, images)]
    assert [stage.effective for stage in sight.stages] == pytest.approx(expected)
    assert [stage.filters for stage in sight.stages] == [5, 7]


def test_every_patch_of_a_filter_is_of_another_image_best_first():
    sight = look(_network({"family": "residual"}, "4-6", 1), _random(30, 1, 12, 12))
    for stage in sight.stages:
        assert all(len(set(row)) == filtersight.PATCHES for row in stage.images.tolist())
        assert (np.diff(stage.responses, axis=1) <= 0).all()


def test_the_order_of_the_images_does_not_matter_and_nothing_is_drawn():
    network, images = _network({}, "5-7", 1), _random(40, 1, 8, 8)
    order = torch.from_numpy(np.random.default_rng(0).permutation(40))
    state = torch.get_rng_state()
    one, again, other = look(network, images), look(network, images), look(network, images[order])
    assert torch.equal(torch.get_rng_state(), state)
    for first, same, moved in zip(one.stages, again.stages, other.stages, strict=True):
        assert (first.images == same.images).all()
        excited = first.responses > first.least[:, None]  # all that does not excite a filter ties
        assert excited.mean() > 0.5
        assert (first.images == order.numpy()[moved.images])[excited].all()
        assert (first.places == moved.places)[excited].all()
        assert first.effective == pytest.approx(moved.effective)


def test_images_that_do_not_excite_a_filter_are_no_patches_of_it():
    images = _marked_images()
    images[5:] = 0  # five have the edge, the others nothing
    stage = look(_planted(), images).stages[0]
    assert len(list(stage.patches(0, images.numpy()))) == 5
    assert not list(stage.patches(2, images.numpy()))


def test_few_images_give_few_patches():
    stage = look(_planted(), _marked_images()[:4]).stages[0]
    assert stage.images.shape == (3, 4)
    assert len(list(stage.patches(0, _marked_images().numpy()))) == 4


class _Tokens(nn.Module):
    def forward(self, features):
        return features.flatten(2)


class _Fixed(nn.Sequential):
    """Takes images of one size only."""

    def __init__(self):
        super().__init__()
        self.stage1 = nn.Conv2d(1, 3, 3, padding=1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3 * 64, 4)


def test_a_network_with_a_head_of_fixed_size_has_its_fields_all_the_same():
    assert receptive_fields(_Fixed(), (1, 8, 8)) == [(Field(3, -1, 1), Field(3, -1, 1))]


class _Uncalled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 1)
        self.stage1 = nn.Identity()

    def forward(self, images):
        return self.first(images)


def _own(**children):
    network = nn.Sequential()
    for name, child in children.items():
        network.add_module(name, child)
    return network


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (_own(features=nn.Conv2d(1, 2, 3)), "no children named stage1"),
        (_own(stages=nn.Conv2d(1, 2, 3)), "no children named stage1"),
        (_own(stage1=nn.Flatten()), "first convolution does not see the images"),
        (_own(stage1=nn.Sequential(nn.Conv2d(1, 2, 3), _Tokens())), "no feature map"),
        (_Uncalled(), "not called"),
    ],
    ids=["other names", "a list of stages", "no convolution", "tokens", "uncalled"],
)
def test_networks_that_cannot_be_looked_into_say_why(network, reason):
    seen = look(network, _random(3, 1, 8, 8))
    assert isinstance(seen, Unseen)
    assert reason in seen.reason


def test_an_ordinary_network_is_looked_into():
    assert isinstance(look(_planted(), _marked_images()), NetworkSight)
