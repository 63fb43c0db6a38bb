import pytest
import torch
from torch import nn

from search import networks
from search.cpukernels import pool_first, subsample_first
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule


def make(**network):
    torch.manual_seed(0)
    return networks.build(NetworkConfig(**network), FilterSchedule((8, 16)), 3, 5).double()


def check_alike(usual, rewritten):
    """Logits, gradients and the names of everything in the state dict."""
    images = torch.randn(4, 3, 37, 38, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = [each(images) for each in (usual, rewritten)]
    torch.testing.assert_close(*logits)
    for each in logits:
        each.square().sum().backward()
    for one, other in zip(usual.parameters(), rewritten.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert list(usual.state_dict()) == list(rewritten.state_dict())


@pytest.mark.parametrize("family", ["residual", "bottleneck", "regnet"])
def test_subsampling_before_a_strided_1x1_convolution_changes_nothing(family):
    usual, subsampled = make(family=family), make(family=family)
    subsample_first(subsampled)
    strided = [layer for layer in usual.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    left = [layer for layer in subsampled.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    assert any(layer.kernel_size == (1, 1) for layer in strided)
    assert [layer.kernel_size for layer in left] == [(3, 3)] * len(left)
    check_alike(usual, subsampled)


@pytest.mark.parametrize(
    ("network", "swapped"),
    [({}, 1), ({"blocks_per_stage": 2, "stem": "large"}, 2), ({"family": "residual", "stem": "large"}, 1)],
)
def test_pooling_before_a_relu_changes_nothing(network, swapped):
    usual, pooled = make(**network), make(**network)
    pool_first(pooled)
    assert sum(isinstance(layer, nn.Identity) for layer in pooled.modules()) == swapped
    check_alike(usual, pooled)
