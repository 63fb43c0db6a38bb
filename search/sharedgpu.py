"""Several processes that train on one GPU.

Owns who may use its memory when. They train side by side; one whose training lacked memory gets the GPU to itself
once, so that what its neighbours held counts for no candidate.
"""

import fcntl
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch

_GATE, _ROOM = 0, 1  # bytes of the file that are locked: by who enters, and while inside


class SharedGpu:
    """A GPU as one of the processes that train on it sees it.

    Locks of a file keep them apart, which the kernel releases when a process ends, however it does. Whoever waits to
    be alone holds the gate, so that nobody enters before it and its turn comes.

    Args:
        path: The file; made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @classmethod
    def of(cls, device: torch.device) -> Self | None:
        """The device, for all processes of this user that have the folder for temporary files in common.

        None on the CPU, and where that folder keeps no locks, which is said.
        """
        if device.type != "cuda":
            return None
        name = f"filter-search-{os.getuid()}-{torch.cuda.get_device_properties(device).uuid}.lock"
        path = Path(tempfile.gettempdir()) / name
        try:
            shared = cls(path)
            with shared.beside_others():
                return shared
        except OSError as error:
            sys.stderr.write(f"{path} keeps no locks ({error.strerror}): what shares this GPU must fit together\n")
            return None

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Use it while others may; what was used is given back at the end."""
        with self._locked(_GATE, fcntl.LOCK_EX):
            fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _ROOM)
        try:
            yield
        finally:
            _give_back()
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _ROOM)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Use it while nobody else does, once those that do have done; what was used is given back at the end."""
        with self._locked(_GATE, fcntl.LOCK_EX), self._locked(_ROOM, fcntl.LOCK_EX):
            try:
                yield
            finally:
                _give_back()

    @contextmanager
    def _locked(self, byte: int, kind: int) -> Iterator[None]:
        fcntl.lockf(self._file, kind, 1, byte)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)


def _give_back() -> None:
    """Free what nothing refers to any more but itself, then what torch would keep for the next tensors."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing before the GPU is used
