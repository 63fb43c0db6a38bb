"""The device networks train on."""

import os
from pathlib import Path

import torch

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of control groups, version 2; "max" where there is none


def device_memory(device: torch.device) -> int:
    """Bytes of memory the device has: a GPU's own, else the machine's or, where that is less, the container's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    return min(machine, int(allowed)) if allowed.isdecimal() else machine
