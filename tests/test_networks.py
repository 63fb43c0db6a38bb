import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import PlainNetwork, build, check_stages
from search.schedule import FilterSchedule


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
    network = PlainNetwork(FilterSchedule((2, 3, 4)), 1, 10, 2)
    assert [name for name, _ in network.named_children()] == [
        "stage1", "pool1", "stage2", "pool2", "stage3", "average", "flatten", "head",
    ]  # fmt: skip
    assert "stage2.block1.conv.weight" in network.state_dict()
    assert network.head.bias is not None


@pytest.mark.parametrize("stages", [1, 4])
def test_images_of_8x8_allow_four_stages(stages):
    check_stages(stages, (1, 8, 8))
    schedule = FilterSchedule((2,) * stages)
    PlainNetwork(schedule, 1, 10, 1).eval()(torch.zeros(1, 1, 8, 8))


def test_more_stages_than_the_images_allow_are_refused():
    with pytest.raises(ConfigError, match=r"5 stages on images of 8x9: .* at most 4 .* remove 1 from filters.stages"):
        check_stages(5, (1, 8, 9))
    with pytest.raises(RuntimeError, match="too small"):  # what the check stands in for
        PlainNetwork(FilterSchedule((2,) * 5), 1, 10, 1).eval()(torch.zeros(1, 1, 8, 9))
