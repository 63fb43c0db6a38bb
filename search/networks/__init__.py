"""Network families: where a filter count becomes a `Conv2d`.

One file each, which an exported model repeats word for word; here a configuration becomes a call to one of them. Knows
nothing of costs (read off by `pricing`), training or data.
"""

import ast
import inspect
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule

if TYPE_CHECKING:
    from torch import nn

Number = TypeVar("Number", int, float)
Call = tuple["Callable[..., nn.Module]", dict[str, Any]]
"""What makes a network, and its arguments; but for factories numbers, truths and tuples of numbers."""


def build(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> "nn.Module":
    """The candidate's network with fresh weights, from torch's global generator.

    Raises:
        ConfigError: The family cannot have these filters, or settings of each stage are not as many as the stages.
    """
    make, arguments = _call(network, schedule, in_channels, classes)
    return make(**arguments)


def _call(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> Call:
    stages = len(schedule)
    _check_lists(network, stages)
    if any(filters % divisor(network) for filters in schedule.filters):
        msg = f"schedule {schedule}: filters of family {network.family} come in multiples of {divisor(network)} here"
        raise ConfigError(msg)
    common = {
        "filters": schedule.filters,
        "in_channels": in_channels,
        "classes": classes,
        "blocks": _each(network.blocks_per_stage, stages),
    }
    first = schedule.filters[0] // (4 if network.family == "bottleneck" else 1)
    strided = {
        "strides": strides(network, stages),
        "stem_filters": network.stem_filters or first,
        "large_stem": network.stem == "large",
    }
    match network.family:  # each imported only for itself: torchvision, which most build on, takes a second and 90 MiB
        case "plain":
            from search.networks.plain import PlainNetwork

            stem = None if network.stem == "small" else network.stem_filters or first
            return PlainNetwork, common | {"stem_filters": stem}
        case "residual" | "bottleneck":
            from search.networks.residual import ResidualNetwork

            return ResidualNetwork, common | strided | {"bottleneck": network.family == "bottleneck"}
        case "regnet":
            from search.networks.regnet import RegNetwork

            return RegNetwork, common | strided | {
                "group_width": network.group_width,
                "squeeze_excite": network.squeeze_excite,
            }
        case "inverted":
            from search.networks.inverted import InvertedNetwork

            return InvertedNetwork, common | strided | {
                "head_filters": network.head_filters,
                "expansion": _each(network.expansion, stages),
                "kernel_size": network.kernel_size,
                "squeeze_excite": network.squeeze_excite,
            }
        case "factory":
            from search.networks import factory

            own = {"factory": network.factory, "schedule": schedule}
            return factory.build, own | {"in_channels": in_channels, "classes": classes}


def source(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> str:
    """Source that ends in `network = ...`, the call that `build` makes; its modules have the same names.

    Raises:
        ConfigError: See `build`.
    """
    if network.factory is not None:
        from search.networks import factory

        return factory.source(network.factory, schedule, in_channels, classes)
    make, arguments = _call(network, schedule, in_channels, classes)
    written = "".join(f"    {name}={value!r},\n" for name, value in arguments.items())
    return f"{_without_docstring(make)}\n\nnetwork = {make.__name__}(\n{written})\n"


def _without_docstring(make: "Callable[..., nn.Module]") -> str:
    """The source of the whole family, from its imports on."""
    text = inspect.getsource(sys.modules[make.__module__])
    opening = ast.parse(text).body[0].end_lineno
    return "".join(text.splitlines(keepends=True)[opening:]).lstrip("\n")


def strides(network: NetworkConfig, stages: int) -> tuple[int, ...]:
    """By how much each stage divides height and width; of plain networks 1, since they pool between stages."""
    if network.family == "plain":
        return (1,) * stages
    first = 2 if network.family == "regnet" and network.stem == "large" else 1
    return network.strides or (first,) + (2,) * (stages - 1)


def divisor(network: NetworkConfig) -> int:
    """What the filters of every stage must be multiples of, so that what is proposed is what is built."""
    match network.family:
        case "bottleneck":
            return 4
        case "regnet":
            return math.lcm(network.group_width, 4) if network.squeeze_excite else network.group_width
        case _:
            return 1


def check_multiple(network: NetworkConfig, multiple: int) -> None:
    """Refuse schedules of which the family could build none but some.

    Raises:
        ConfigError: `filters.multiple` is no multiple of the family's divisor.
    """
    least = divisor(network)
    if multiple % least:
        reason = "its blocks are a quarter as wide inside"
        if network.family == "regnet":
            squeezes = ", and squeeze-and-excitation a quarter of them" if network.squeeze_excite else ""
            reason = f"its groups have network.group_width {network.group_width} filters each{squeezes}"
        msg = (
            f"filters.multiple {multiple}: family {network.family} needs filters in multiples of {least}, since "
            f"{reason}; set filters.multiple to {math.lcm(multiple, least)}"
        )
        raise ConfigError(msg)


def check_stages(network: NetworkConfig, stages: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse more stages than the images or the settings of each stage allow.

    Pooling rounds down, so each stage of a plain network but the first needs two pixels in height and width; strided
    convolutions round up, so they always leave one.

    Args:
        network: The family.
        stages: How many stages the schedules have.
        image_shape: Channels, height and width.

    Raises:
        ConfigError: The last stage would see no pixel, or a list has not one entry for each stage.
    """
    _check_lists(network, stages)
    if network.family != "plain":
        return
    _, height, width = image_shape
    smaller = min(height, width)
    after = ""
    if network.stem == "large":
        smaller, after = math.ceil(smaller / 4), " after a large stem, which leaves a quarter"
    most = smaller.bit_length()
    if stages > most:
        msg = (
            f"{stages} stages on images of {height}x{width}: pooling halves the image between stages{after}, so at "
            f"most {most} are possible; remove {stages - most} from filters.stages or use larger images"
        )
        raise ConfigError(msg)


def largest_tensor(
    network: NetworkConfig, schedule: FilterSchedule, image_shape: tuple[int, int, int], batch_size: int
) -> int:
    """Numbers of the largest tensor a family may need."""
    channels, height, width = image_shape
    widest = max(*schedule.filters, channels, network.stem_filters or 1, network.head_filters or 1)
    inner = widest
    if network.family == "inverted":
        expansion = network.expansion
        inner *= math.ceil(max(expansion) if isinstance(expansion, tuple) else expansion)
    return max(9 * widest * inner, 49 * widest * channels, batch_size * inner * height * width)


def _check_lists(network: NetworkConfig, stages: int) -> None:
    for key in ("blocks_per_stage", "strides", "expansion"):
        values = getattr(network, key)
        if isinstance(values, tuple) and len(values) != stages:
            one = " or null" if key == "strides" else ", or one number for all"
            msg = (
                f"network.{key} is a list of {len(values)} for {stages} stages; give one for each stage of "
                f"filters.stages{one}"
            )
            raise ConfigError(msg)


def _each(values: Number | tuple[Number, ...], stages: int) -> tuple[Number, ...]:
    return values if isinstance(values, tuple) else (values,) * stages
