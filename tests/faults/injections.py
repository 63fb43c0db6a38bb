"""The faults: each breaks something of a study that runs, and mends what does not mend itself."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from faults.studies import LEASE_SECONDS, Ground
from faults.supervisors import Fleet, Supervisor

Inject = Callable[[Fleet, Ground, np.random.Generator], bool]
"""Breaks something; False where there was nothing to break just then."""

_BEYOND_THE_LEASE = LEASE_SECONDS + 1.5


def _chosen(fleet: Fleet, rng: np.random.Generator) -> Supervisor | None:
    """One of the supervisors that have workers."""
    busy = fleet.busy()
    return busy[rng.integers(len(busy))] if busy else None


def _kill(process: int | None) -> bool:
    with suppress(ProcessLookupError):
        if process is not None:
            os.kill(process, signal.SIGKILL)
            return True
    return False


def kill_worker(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """SIGKILL."""
    chosen = _chosen(fleet, rng)
    workers = chosen.workers() if chosen else []
    return bool(workers) and _kill(workers[rng.integers(len(workers))])


def kill_template(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """SIGKILL to what forks the workers."""
    chosen = _chosen(fleet, rng)
    return chosen is not None and _kill(chosen.template())


def kill_supervisor(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """SIGKILL; it is started again."""
    return _signal(fleet, rng, signal.SIGKILL)


def terminate(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """SIGTERM to a supervisor; it is started again."""
    return _signal(fleet, rng, signal.SIGTERM)


def interrupt(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """SIGINT to a supervisor; it is started again."""
    return _signal(fleet, rng, signal.SIGINT)


def _signal(fleet: Fleet, rng: np.random.Generator, number: signal.Signals) -> bool:
    chosen = _chosen(fleet, rng)
    if chosen is None:
        return False
    chosen.send(number)
    return True


def stop_worker(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """SIGSTOP for longer than the lease, then SIGCONT."""
    chosen = _chosen(fleet, rng)
    workers = chosen.workers() if chosen else []
    return bool(workers) and _stop(fleet, [workers[rng.integers(len(workers))]])


def stop_supervisor(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """The same to a supervisor, whose workers go on."""
    chosen = _chosen(fleet, rng)
    return chosen is not None and _stop(fleet, [chosen.process.pid])


def stop_family(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """The same to a supervisor and all its workers, as when a machine is suspended."""
    chosen = _chosen(fleet, rng)
    return chosen is not None and _stop(fleet, chosen.family())


def _stop(fleet: Fleet, processes: list[int]) -> bool:
    for each in processes:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGSTOP)
    try:
        fleet.wait(_BEYOND_THE_LEASE)
    finally:
        for each in processes:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)
    return True


def stop_server(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """Stop PostgreSQL in order and start it again."""
    return _restart_server(fleet, at, rng, "fast")


def crash_server(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """Stop PostgreSQL as a crash does and start it again."""
    return _restart_server(fleet, at, rng, "immediate")


def _restart_server(fleet: Fleet, at: Ground, rng: np.random.Generator, mode: str) -> bool:
    if at.server is None:
        return False
    fleet.held = True
    at.server.stop(mode)
    try:
        fleet.wait(rng.uniform(0.1, 1.5 * LEASE_SECONDS))
    finally:
        at.server.start()
        fleet.held = False
    return True


def fill_disk(fleet: Fleet, at: Ground, rng: np.random.Generator) -> bool:
    """Leave no room beside the study until every supervisor has noticed or some seconds are over; then make room."""
    filler = at.folder / "filler"
    fleet.tolerated, fleet.held = {5}, True
    try:
        fill(filler)
        fleet.until(lambda: not fleet.all, rng.uniform(2, 12))
    finally:
        filler.unlink(missing_ok=True)
        fleet.held = False
    return True


def fill(path: Path) -> None:
    """Take all room there is, to the last block."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
