"""Workers on a Ray cluster: how many, started where Ray sees fit, watched, drained, never left behind.

Ray places an actor for each worker and starts it anew elsewhere when its node is lost; what a lost worker was doing
returns to the queue by its lease. Ray is imported here alone, and only once somebody asks for it.
"""

import importlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from search import storageurl
from search.config import ComputeConfig
from search.errors import ConfigError, FilterSearchError
from search.launch import how_it_ended
from search.raykeeper import Ended, Keeper, Task
from search.study import Storage

_COMMAND = ("-P", "-m", "search", "worker")
_OPTIONS = ("--workers", "1", "--allow-code")  # of the configuration that the launch was given by hand
_FILES = ("config.yaml", "storage.url")  # by which a worker knows the study
_MOST_FAILURES = 3  # of one worker in a row, before it claims anything
_GROW_SECONDS = 2.0  # between two looks at what the cluster holds
_REACH_SECONDS = 10.0  # for a head node, or for an actor that is to drain, to answer


@dataclass
class _Kept:
    """A worker that was asked for.

    Attributes:
        actor: Ray's handle of its keeper.
        run: Ray's reference to how its process ends.
        failures: How often in a row it ended before it claimed anything.
        gone: Whether it has ended and is not started again.
        drain: Ray's reference to its keeper's having heard that it is to end.
    """

    actor: Any
    run: Any
    failures: int = 0
    gone: bool = False
    drain: Any = None


class RayWorkers:
    """Worker processes of one study on a Ray cluster, one thread each; a context manager, connected until its end.

    Args:
        folder: The study folder.
        compute: How many, on what, and where the cluster is. Without a number, as many as the cluster holds, and more
            as it grows.
        environment: Variables that say where the study's storage is, for the workers alone.
        command: What to run in place of `filter-search worker`.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached or does not suit the study.
    """

    def __init__(
        self,
        folder: Path,
        compute: ComputeConfig,
        environment: Mapping[str, str],
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self._folder = folder.absolute()
        self._compute = compute
        self._environment = environment
        self._command = command
        self._ray = _import_ray()
        with _handlers_kept():
            _connect(self._ray, compute.ray_address or os.environ.get("RAY_ADDRESS") or "auto")
        self._gpus = self._share_of_a_gpu()
        self._kept: list[_Kept] = []
        self._looked = -math.inf
        self._drained: float | None = None
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._ray.shutdown()

    def tend(self, storage: Storage) -> None:
        """Start the workers the first time; then others in place of those that ended, and more as the cluster grows.

        Raises:
            ConfigError: The cluster has other hosts, which cannot reach a study on this one's disk.
            FilterSearchError: Workers keep ending before they claim anything; with what they said last.
        """
        if time.monotonic() > self._looked + _GROW_SECONDS:
            self._grow()
            self._looked = time.monotonic()
        self._hear(lambda ended: storage.has_claimed(lambda owner: owner.startswith(ended.supervisor)))

    def end_overdue(self, storage: Storage) -> None:
        """Nothing: the supervisor on each node does."""

    def drain(self) -> None:
        """Ask every worker to end after the job it carries out."""
        self._drained = time.monotonic()
        for kept in self._kept:
            if not kept.gone:
                kept.drain = kept.actor.drain.remote()

    def kill(self) -> None:
        """End every worker at once."""
        for kept in self._kept:
            self._end(kept)

    def running(self) -> bool:
        """Whether any worker has not ended; one that waits for a node does not run."""
        self._hear(lambda _: False)
        if self._drained is not None:
            for kept in self._kept:
                if not kept.gone and not self._will_drain(kept, self._drained):
                    self._end(kept)
        return not all(kept.gone for kept in self._kept)

    def _share_of_a_gpu(self) -> float | None:
        """What a worker takes of a GPU; None for a CPU each."""
        device = self._compute.device
        if device == "cpu" or (device == "auto" and not self._ray.cluster_resources().get("GPU")):
            return None
        return self._compute.gpus_per_worker

    def _grow(self) -> None:
        """Ask for as many workers as are wanted by now.

        Raises:
            ConfigError: See `tend`.
        """
        nodes = [node for node in self._ray.nodes() if capacity([node], self._gpus)]
        own = self._ray.util.get_node_ip_address()
        others = {node["NodeManagerAddress"] for node in nodes} - {own}
        if others and not (self._folder / "storage.url").exists():
            msg = (
                f"the study in {self._folder} is an SQLite file, which serves one host, and the Ray cluster has "
                f"others ({', '.join(sorted(others)[:3])}); begin it with FILTER_SEARCH_STORAGE naming a PostgreSQL "
                "database, or leave --launcher ray out"
            )
            raise ConfigError(msg)
        workers = self._compute.workers
        wanted = max(1, capacity(nodes, self._gpus)) if workers == "auto" else workers
        if not nodes and not self._kept:
            sys.stderr.write("filter-search: the Ray cluster has no room for a worker yet; waiting for nodes\n")
        while len(self._kept) < wanted:
            self._kept.append(self._start())

    def _start(self) -> _Kept:
        files = {name: (self._folder / name).read_bytes() for name in _FILES if (self._folder / name).is_file()}
        task = Task(self._command, _OPTIONS, self._folder, Path.cwd(), files, self._environment)
        needs = {"num_cpus": 1} if self._gpus is None else {"num_cpus": 0, "num_gpus": self._gpus}
        keeper = self._ray.remote(Keeper).options(
            **needs, max_restarts=-1, scheduling_strategy="SPREAD", max_concurrency=2
        )
        actor = keeper.remote(task)
        return _Kept(actor, actor.run.remote())

    def _hear(self, has_claimed: Callable[[Ended], bool]) -> None:
        """Note which workers have ended, and start others in their place unless they are to end."""
        live = {kept.run: kept for kept in self._kept if not kept.gone}
        heard, _ = self._ray.wait(list(live), num_returns=len(live), timeout=0) if live else ([], [])
        for run in heard:
            kept = live[run]
            try:
                ended = self._ray.get(run)
            except self._ray.exceptions.ActorUnavailableError:  # its node was lost; Ray starts it anew
                self._again(kept)
            except self._ray.exceptions.RayError as error:
                self._failed(kept, f"Ray cannot start it: {error}")
            else:
                self._note_end(kept, ended, has_claimed)

    def _note_end(self, kept: _Kept, ended: Ended | None, has_claimed: Callable[[Ended], bool]) -> None:
        if ended is None or ended.status == 0 or self._drained is not None:
            self._done = self._done or (ended is not None and ended.status == 0)
            self._end(kept)
        elif has_claimed(ended):
            kept.failures = 0
            self._again(kept)
        else:
            self._failed(kept, f"{how_it_ended(ended.status, _named(ended))}\n{ended.said}")

    def _again(self, kept: _Kept) -> None:
        if self._drained is None:
            kept.run = kept.actor.run.remote()
        else:
            self._end(kept)

    def _failed(self, kept: _Kept, detail: str) -> None:
        """Start a worker once more that ended before it claimed anything, or give it up.

        Raises:
            FilterSearchError: None is left.
        """
        kept.failures += 1
        if kept.failures < _MOST_FAILURES and self._drained is None:
            self._end(kept)
            again = self._start()  # with an actor of its own, which Ray may place elsewhere
            kept.actor, kept.run, kept.gone = again.actor, again.run, False
            return
        self._end(kept)
        if self._drained is not None:
            return
        if all(each.gone for each in self._kept) and not self._done:
            msg = f"workers end before they start any work; the last one said:\n{detail}"
            raise FilterSearchError(msg)
        sys.stderr.write(
            f"filter-search: a worker is given up, the others go on; it ended {kept.failures} times "
            f"before it started any work and said last:\n{detail}\n"
        )

    def _end(self, kept: _Kept) -> None:
        """Let go of a keeper, with which its worker ends at once if it runs."""
        if not kept.gone:
            kept.gone = True
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(kept.actor)

    def _will_drain(self, kept: _Kept, since: float) -> bool:
        """Whether a keeper has heard that its worker is to end, or may still hear it."""
        heard, _ = self._ray.wait([kept.drain], timeout=0)
        if not heard:
            return time.monotonic() < since + _REACH_SECONDS
        try:
            self._ray.get(kept.drain)
        except self._ray.exceptions.RayError:
            return False
        return True


def storage_environment(folder: Path) -> dict[str, str]:
    """What this process knows of where a study's storage is and how to get in, as variables for workers elsewhere.

    Raises:
        ConfigError: See `storageurl.of`.
        StorageError: See `storageurl.of`.
    """
    url = storageurl.of(folder)
    if url is None:
        return {}
    known = {storageurl.VARIABLE: url.render_as_string(hide_password=False), storageurl.FILE_VARIABLE: ""}
    return known | {name: os.environ[name] for name in ("PGPASSWORD",) if name in os.environ}


def capacity(nodes: Sequence[Mapping[str, Any]], gpus: float | None) -> int:
    """How many workers nodes hold: one for each CPU, or as many as share their GPUs.

    Args:
        nodes: As `ray.nodes()` has them.
        gpus: What a worker takes of a GPU; None where it takes a CPU.
    """
    held = [node["Resources"] for node in nodes if node["Alive"]]
    if gpus is None:
        return sum(int(each.get("CPU", 0)) for each in held)
    return sum(int(each.get("GPU", 0)) for each in held) * int(1 / gpus + 1e-9)


def _import_ray() -> ModuleType:
    """Ray.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError:
        msg = "--launcher ray needs Ray, which is not installed; pip install 'filter-search[ray]', or leave it out"
        raise ConfigError(msg) from None


def _connect(ray: ModuleType, address: str) -> None:
    """Join a running cluster; none is started, since one machine needs no Ray.

    Raises:
        ConfigError: There is none, or it refuses.
    """
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal() and "://" not in address:
            # else Ray tries for three minutes, and is deaf to signals meanwhile
            socket.create_connection((host, int(port)), _REACH_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        what = "no Ray cluster runs here" if address == "auto" else f"the Ray cluster {address} cannot be used"
        msg = (
            f"{what} ({str(error).splitlines()[0]}); name one by compute.ray_address or RAY_ADDRESS, start one with "
            "`ray start --head`, or leave --launcher ray out: workers on this machine need no Ray"
        )
        raise ConfigError(msg) from None


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """In here, what heeds signals is kept from Ray, which would set a handler of its own for SIGTERM."""
    own = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in own}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _named(ended: Ended) -> str:
    return f"the worker on {ended.supervisor.partition(':')[0]}"
