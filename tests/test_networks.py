import pytest
import torch
from families import FAMILIES, MEMBERS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import build, check_multiple, check_stages
from search.networks.plain import PlainNetwork
from search.schedule import FilterSchedule


def shapes(network):
    return [tuple(tensor.shape) for tensor in network.state_dict().values()]


@settings(max_examples=25, deadline=None)
@given(
    filters=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    blocks=st.integers(1, 3),
    channels=st.integers(1, 3),
    classes=st.integers(2, 11),
)
def test_every_filter_count_becomes_that_many_convolution_outputs(filters, blocks, channels, classes):
    schedule = FilterSchedule(tuple(filters))
    network = build(NetworkConfig(blocks_per_stage=blocks), schedule, channels, classes)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [f for f in filters for _ in range(blocks)]
    assert all(layer.bias is None and layer.kernel_size == (3, 3) for layer in convolutions)
    assert network.eval()(torch.zeros(2, channels, 8, 8)).shape == (2, classes)


def test_pooling_lies_between_stages_only():
    network = PlainNetwork((2, 3, 4), 1, 10, (2, 2, 2))
    assert [name for name, _ in network.named_children()] == [
        "stage1", "pool1", "stage2", "pool2", "stage3", "average", "flatten", "head",
    ]  # fmt: skip
    assert "stage2.block1.conv.weight" in network.state_dict()
    assert network.head.bias is not None


def stage_sizes(network, schedule, side):
    """Height of what each stage puts out."""
    built = build(NetworkConfig(**network), schedule, 1, 10).eval()
    sizes = []
    for name, child in built.named_children():
        if name.startswith("stage"):
            child.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output.shape[-1]))
    built(torch.zeros(1, 1, side, side))
    return sizes


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_put_out_their_filters(family):
    network = build(NetworkConfig(**FAMILIES[family]), FilterSchedule((8, 24, 16)), 3, 10)
    widths = []
    for name, child in network.named_children():
        if name.startswith("stage"):
            child.register_forward_hook(lambda _layer, _inputs, output: widths.append(output.shape[1]))
    assert network.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 10)
    assert widths == [8, 24, 16]


@pytest.mark.parametrize("family", ["plain", "residual", "bottleneck", "regnet", "inverted"])
def test_a_small_stem_leaves_the_first_stage_at_full_resolution(family):
    assert stage_sizes({"family": family}, FilterSchedule((8, 24, 16)), 16) == [16, 8, 4]


@pytest.mark.parametrize(
    ("family", "share"), [("plain", 4), ("residual", 4), ("bottleneck", 4), ("regnet", 4), ("inverted", 2)]
)
def test_a_large_stem_leaves_a_share_of_the_resolution(family, share):
    sizes = stage_sizes({"family": family, "stem": "large"}, FilterSchedule((8, 8)), 64)
    assert sizes == [64 // share, 64 // share // 2]


def test_strides_of_each_stage_are_as_configured():
    assert stage_sizes({"family": "residual", "strides": (2, 1, 2)}, FilterSchedule((8, 8, 8)), 16) == [8, 8, 4]


def member(name):
    """A standard member of ours beside torchvision's."""
    network, filters = MEMBERS[name]
    ours = build(NetworkConfig(**network, stem="large"), FilterSchedule(filters), 3, 1000)
    return ours, models.get_model(name)


@pytest.mark.parametrize("name", MEMBERS)
def test_standard_members_are_torchvisions_with_other_names(name):
    ours, theirs = member(name)
    assert shapes(ours) == shapes(theirs)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "regnet_y_400mf"])
def test_initial_weights_are_drawn_as_torchvisions(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours, theirs = (network.state_dict() for network in member(name))
    for (key, mine), other in zip(ours.items(), theirs.values(), strict=True):
        deviation = float(other.double().std(correction=0))
        near = 6 * deviation / mine.numel() ** 0.5
        assert float(mine.double().mean()) == pytest.approx(float(other.double().mean()), abs=near), key
        if mine.numel() > 1000:
            assert float(mine.double().std(correction=0)) == pytest.approx(deviation, rel=0.15), key


def test_weights_on_the_meta_device_draw_nothing():
    before = torch.get_rng_state()
    with torch.device("meta"):
        for network in FAMILIES.values():
            build(NetworkConfig(**network), FilterSchedule((8, 16, 8)), 1, 10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("stages", [1, 4])
def test_images_of_8x8_allow_four_stages(stages):
    check_stages(NetworkConfig(), stages, (1, 8, 8))
    build(NetworkConfig(), FilterSchedule((2,) * stages), 1, 10).eval()(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("network", "stages", "shape", "said"),
    [
        ({}, 5, (1, 8, 9), r"5 stages on images of 8x9: .* at most 4 .* remove 1 from filters.stages"),
        ({"stem": "large"}, 3, (3, 9, 8), r"after a large stem, which leaves a quarter, so at most 2 are possible"),
    ],
)
def test_more_stages_than_the_images_allow_are_refused(network, stages, shape, said):
    with pytest.raises(ConfigError, match=said):
        check_stages(NetworkConfig(**network), stages, shape)
    built = build(NetworkConfig(**network), FilterSchedule((2,) * stages), shape[0], 10)
    with pytest.raises(RuntimeError, match="too small"):  # what the check stands in for
        built.eval()(torch.zeros(1, *shape))
    check_stages(NetworkConfig(**network), stages - 1, shape)


@pytest.mark.parametrize("family", ["residual", "bottleneck", "inverted"])
def test_strides_leave_a_pixel_however_many_stages(family):
    check_stages(NetworkConfig(family=family), 5, (1, 5, 5))
    assert stage_sizes({"family": family}, FilterSchedule((4,) * 5), 5) == [5, 3, 2, 1, 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"blocks_per_stage": (1, 2)}, "network.blocks_per_stage is a list of 2 for 3 stages; .* or one number"),
        ({"family": "residual", "strides": (1, 2, 2, 2)}, "network.strides is a list of 4 for 3 stages; .* or null"),
        ({"family": "inverted", "expansion": (1.0,)}, "network.expansion is a list of 1 for 3 stages; give one .*"),
    ],
)  # fmt: skip
def test_settings_of_each_stage_must_be_as_many_as_the_stages(settings, said):
    with pytest.raises(ConfigError, match=said):
        check_stages(NetworkConfig(**settings), 3, (1, 32, 32))
    with pytest.raises(ConfigError, match=said):
        build(NetworkConfig(**settings), FilterSchedule((8, 8, 8)), 1, 10)


def test_filters_that_no_block_could_have_are_refused_once_for_all():
    with pytest.raises(ConfigError, match=r"filters.multiple 6: family bottleneck needs filters in multiples of 4"):
        check_multiple(NetworkConfig(family="bottleneck"), 6)
    with pytest.raises(ConfigError, match=r"set filters.multiple to 12"):
        check_multiple(NetworkConfig(family="bottleneck"), 6)
    check_multiple(NetworkConfig(family="bottleneck"), 12)
    with pytest.raises(ConfigError, match=r"schedule 4-6: filters of family bottleneck come in multiples of 4"):
        build(NetworkConfig(family="bottleneck"), FilterSchedule((4, 6)), 1, 10)
