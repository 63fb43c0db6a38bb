"""How coordinator, template and workers hear of each other and end together; light, so that it is there at once."""

import ctypes
import os
import signal
import struct
import sys
import threading
from enum import IntEnum
from types import FrameType

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class Event(IntEnum):
    """What a template says has happened to a worker."""

    STARTED = 0
    ENDED = 1


AFTER_FAILURE = 75
"""Exit status of a worker that ended because a job had failed in it, so that the next begins in a process unharmed."""
MESSAGE = struct.Struct("=iii")
"""From a template: the event, the worker's process id, and its exit status, negative for a signal."""


class Stopping:
    """Whether SIGTERM has come; SIGINT is left alone, since it is the coordinator's business."""

    def __init__(self) -> None:
        self.asked = False  # no threading.Event: a handler that sets one may interrupt its own thread's waiting for it
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def end_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, whatever either is busy with."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with(leash: int) -> None:
    """End this process when this descriptor's other end closes, which is when whoever holds it has gone."""

    def watch() -> None:
        os.read(leash, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
