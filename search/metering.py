"""Reads the costs of one network off the meta device, where nothing is allocated or computed.

One build costs 40 ms and more. Knows nothing of spaces; nothing here trains.
"""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search.cost import Costs
from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.networks import build, check_stages, largest_tensor
from search.networks.factory import check_logits
from search.polynomials import Measured
from search.schedule import FilterSchedule
from search.stepmemory import step_memory

_LARGEST_TENSOR = 2**56
"""Numbers a tensor may hold in a network built for its price; torch counts bytes in 64 bits, so there is room."""


def price(
    network: NetworkConfig,
    schedule: FilterSchedule,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
) -> Costs:
    """All costs of one candidate, from a build on the meta device.

    MACs are half the FLOPs that `torch.utils.flop_counter` counts. Memory is a prediction of the peak while training
    in float32 with AdamW, see `search.stepmemory`.

    Args:
        network: The family.
        schedule: The candidate's filters.
        image_shape: Channels, height and width.
        classes: Width of the head.
        batch_size: Images per training step; 2 or more, as batch norm needs.

    Raises:
        ConfigError: More stages than the images allow, filters the family cannot have, tensors beyond what torch can
            count, or a function of the user's own that makes no such network.
    """
    return measure(network, schedule, image_shape, classes, batch_size).costs


def measure(
    network: NetworkConfig,
    schedule: FilterSchedule,
    image_shape: tuple[int, int, int],
    classes: int,
    batch_size: int,
) -> Measured:
    """What a candidate costs, and what it holds at every moment of a training step; arguments as of `price`.

    Raises:
        ConfigError: See `price`.
    """
    check_stages(network, len(schedule), image_shape)
    _refuse_uncountable(network, schedule, image_shape, batch_size)
    built = _build(network, schedule, image_shape[0], classes)
    images = torch.empty(batch_size, *image_shape, device="meta")
    if network.factory is not None:
        check_logits(network.factory, built, images, classes)
    with torch.device("meta"):
        macs, activations = _count_forward(built, images[:1])
        moments = step_memory(built, images)
    return Measured(sum(p.numel() for p in built.parameters()), macs, activations, moments)


def _build(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> nn.Module:
    """The network on the meta device."""
    try:
        with torch.device("meta"):
            return build(network, schedule, in_channels, classes)
    except ConfigError:
        if network.factory is None:
            raise
    # A function that computes with tensors on its way, if only a list of rates, cannot do so on the meta device.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return build(network, schedule, in_channels, classes).to("meta")


def _refuse_uncountable(
    network: NetworkConfig, schedule: FilterSchedule, image_shape: tuple[int, int, int], batch_size: int
) -> None:
    largest = largest_tensor(network, schedule, image_shape, batch_size)
    if largest > _LARGEST_TENSOR:
        msg = (
            f"schedule {schedule} needs tensors of up to {largest:,} numbers; a network is built for its price up to "
            f"{_LARGEST_TENSOR:,}: lower the filters or the batch size"
        )
        raise ConfigError(msg)


def _count_forward(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """MACs and convolution outputs of one forward pass of one image."""
    outputs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output.numel()))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network.eval()(image)
    for hook in hooks:
        hook.remove()
    return flops.get_total_flops() // 2, sum(outputs)


def channels_of(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> set[int]:
    """What the weights of a candidate's network have for input and output channels."""
    weights = _build(network, schedule, in_channels, classes).parameters()
    return {size for weight in weights for size in weight.shape[:2]}
