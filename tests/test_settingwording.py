import pytest

from search.networkconfig import NetworkConfig
from search.settingwording import network_text


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({}, "plain, 3 stages, 1 block each, small stem"),
        (
            {"family": "residual", "blocks_per_stage": (3, 4, 6), "strides": (1, 1, 2), "stem": "large"},
            "residual, 3 stages, blocks 3-4-6, large stem, strides 1-1-2",
        ),
        ({"family": "factory", "factory": "mine:build"}, "mine:build, 3 stages"),
    ],
)
def test_network_text_names_what_shapes_it(network, said):
    assert network_text(NetworkConfig(**network), 3) == said
