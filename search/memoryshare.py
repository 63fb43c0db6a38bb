"""Budgets of memory given as a share of the device's, worked out in bytes before anything else sees them."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from search.config import DeviceName

DeviceMemory = Callable[[DeviceName], int]
"""Bytes of a device named as `compute.device` has it."""

_SHARE = re.compile(r"\s*memory\s*<=\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*")


def in_bytes(tree: Any, device_memory: DeviceMemory | None) -> Any:  # noqa: ANN401 # whatever YAML holds
    """A configuration's plain data with `memory <= 50 %` among its budgets in bytes; anything else as it is.

    Args:
        tree: Sections and keys, not yet checked.
        device_memory: What says how much the device has; None leaves shares as they are.
    """
    match tree:
        case {"budgets": [*budgets]} if device_memory is not None:
            compute = tree.get("compute")
            device = compute.get("device", "auto") if isinstance(compute, dict) else "auto"
            return tree | {"budgets": [_limit(budget, device, device_memory) for budget in budgets]}
    return tree


def _limit(budget: object, device: object, device_memory: DeviceMemory) -> object:
    share = _SHARE.fullmatch(budget) if isinstance(budget, str) else None
    if not share or not 0 < Fraction(share[1]) <= 100:
        return budget
    match device:
        case "auto" | "cpu" | "cuda":
            return f"memory <= {int(Fraction(share[1]) / 100 * device_memory(device))}"
        case _:
            return budget
