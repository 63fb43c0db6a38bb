"""The device networks train on, and how many processes train there."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from search.config import ComputeConfig, DeviceName
from search.errors import ConfigError

if TYPE_CHECKING:
    import torch

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of control groups, version 2; "max" where there is none


def choose_device(name: DeviceName) -> "torch.device":
    """The device to train on; `auto` takes the GPU where there is one.

    Raises:
        ConfigError: `cuda` was asked for and there is none.
    """
    import torch  # here, since a process that only coordinates does without

    if name == "cuda" and not torch.cuda.is_available():
        msg = (
            "compute.device is cuda, but torch sees no CUDA device; set it to cpu or auto, or repair driver and torch"
        )
        raise ConfigError(msg)
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda", torch.cuda.current_device()) if use_cuda else torch.device("cpu")


def device_name(name: DeviceName) -> str:
    """What that device is called: `cpu`, or the GPU's own name."""
    import torch  # see above

    device = choose_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def count_workers(compute: ComputeConfig) -> int:
    """Local processes: as configured, else one per usable core on a CPU and one on a GPU."""
    if compute.workers != "auto":
        return compute.workers
    if choose_device(compute.device).type == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_memory(name: DeviceName) -> int:
    """Bytes of memory that device has: a GPU's own, else the machine's or, where that is less, the container's."""
    import torch  # see above

    device = choose_device(name)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    return min(machine, int(allowed)) if allowed.isdecimal() else machine
