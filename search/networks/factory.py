"""Networks that a function of the user's own makes.

Owns the call and what can be wrong with what it returns. Unlike the other families' files, an exported model does not
repeat this one: it imports the function.
"""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from search.errors import ConfigError
from search.imports import import_function
from search.schedule import FilterSchedule

_KEY = "network.factory"


def build(factory: str, schedule: FilterSchedule, in_channels: int, classes: int) -> nn.Module:
    """What the function makes of a schedule.

    Args:
        factory: `package.module:function`.
        schedule: The filters it gets, as a tuple.
        in_channels: Channels of the images.
        classes: How many.

    Raises:
        ConfigError: It cannot be imported, raises, or returns something that is no module, is not whole yet, or has
            nothing to train.
    """
    function = import_function(factory, _KEY)
    try:
        network = function(schedule.filters, in_channels, classes)
    except Exception as error:  # the user's code, which may raise anything
        msg = (
            f"{_KEY} {factory} failed ({type(error).__name__}: {error}) when called with "
            f"({schedule.filters}, {in_channels}, {classes}); mend it, or leave such filters out of the space"
        )
        raise ConfigError(msg) from error
    if not isinstance(network, nn.Module):
        msg = f"{_KEY} {factory} returned a {type(network).__name__} for {schedule}; it must return an nn.Module"
        raise ConfigError(msg)
    lazy = sorted({type(part).__name__ for part in network.modules() if _uninitialised(part)})
    if lazy:
        msg = (
            f"{_KEY} {factory} returned uninitialised parameters for {schedule} (in {', '.join(lazy)}); a network "
            "must be whole when it is returned, so give its sizes in place of a lazy layer"
        )
        raise ConfigError(msg)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        msg = f"{_KEY} {factory} returned a module without parameters to train for {schedule}; give it some"
        raise ConfigError(msg)
    return network


def _uninitialised(part: nn.Module) -> bool:
    return any(is_lazy(tensor) for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)))


def check_logits(factory: str, network: nn.Module, images: Tensor, classes: int) -> None:
    """Refuse a network that does not map images to logits.

    Args:
        factory: What made it.
        network: On the meta device, in evaluation mode afterwards.
        images: Likewise, `(batch, channels, height, width)`.
        classes: How many logits each image must get.

    Raises:
        ConfigError: It raises, or returns something else than logits `(batch, classes)`.
    """
    shape = "x".join(map(str, images.shape[1:]))
    try:
        with torch.no_grad():
            logits = network.eval()(images)
    except Exception as error:  # the user's code, which may raise anything
        msg = (
            f"the network of {_KEY} {factory} failed on images of {shape} ({type(error).__name__}: {error}); it must "
            "take them, and make nothing depend on their values, since costs are read off without computing"
        )
        raise ConfigError(msg) from error
    if not isinstance(logits, Tensor) or logits.shape != (len(images), classes):
        came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        msg = (
            f"the network of {_KEY} {factory} made {came} of {len(images)} images of {shape}; it must give logits of "
            f"shape {(len(images), classes)}, one for each class"
        )
        raise ConfigError(msg)


def source(factory: str, schedule: FilterSchedule, in_channels: int, classes: int) -> str:
    """Source that ends in `network = ...`, the call that `build` makes."""
    module, _, name = factory.partition(":")
    call = f"factory({schedule.filters}, {in_channels}, {classes})"
    return f"from {module} import {name} as factory\n\nnetwork = {call}\n"  # its own name may be one of the file's
