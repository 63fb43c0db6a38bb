"""Which supervisors are alive: each renews a beat in the study's storage, and releases what silent ones left running.

A supervisor is a process that tends workers on one machine. Beats are compared with what they were, never with
another machine's clock; for how long one has not changed is told by the watcher's own.
"""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optuna.trial import TrialState

from search.database import REFUSALS
from search.errors import ConfigError
from search.study import PURPOSES, Storage, supervisor_of

_PREFIX = "supervisor:"
_BEATS = 6  # in the time after which one is taken for dead


class Leases:
    """A supervisor's own beat, and its watch over the others'; a context manager, in which it beats.

    Args:
        storage: The study's.
        folder: The study folder this supervisor works from.
        seconds: How long one may be silent.
    """

    def __init__(self, storage: Storage, folder: Path, seconds: float) -> None:
        self._storage, self._seconds = storage, seconds
        self._here = {"host": socket.gethostname(), "folder": str(folder.resolve())}
        self._heard: dict[str, tuple[int, float]] = {}
        self._listened = -float("inf")
        self._ended = threading.Event()
        # a thread: no computation of this process, however long, makes it look dead
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        """Begin to beat.

        Raises:
            ConfigError: The study is a file, and another machine is at it.
        """
        if self._storage.is_file:
            self._refuse_other_machines(beating(self._storage))
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        with suppress(*REFUSALS):
            self._storage.forget(_PREFIX + self._storage.supervisor)

    def _beat(self) -> None:
        beat = 0
        while True:
            beat += 1
            with suppress(*REFUSALS):  # the next may get through; until then this is a silent one
                key = _PREFIX + self._storage.supervisor
                self._storage.say(key, self._here | {"beat": beat, "lease": self._seconds})
            if self._ended.wait(self._seconds / _BEATS):
                return

    def release_silent(self) -> None:
        """Put back into the queue what silent supervisors left running; called often, looks from time to time."""
        if time.monotonic() < self._listened + self._seconds / _BEATS:
            return
        for silent in self._silent(self._owners()):
            detail = f"whoever tended its worker, {silent}, was silent for more than {self._seconds:g} seconds"
            self._release({silent}, detail)

    def _silent(self, owners: set[str]) -> set[str]:
        """Those of some supervisors, and of all that beat, that were silent for too long.

        Whoever was silent while this process did not listen either, as when a server was away or this process was
        stopped, is given the whole time again.
        """
        beats = beating(self._storage)
        now, before = time.monotonic(), self._heard if self._listens() else {}
        self._listened, self._heard = now, {}
        for each in (owners | beats.keys()) - {self._storage.supervisor}:
            beat = beats.get(each, {}).get("beat", 0)
            known = before.get(each)
            self._heard[each] = known if known and known[0] == beat else (beat, now)
        # whoever beats more seldom, since its own lease is longer, is waited for as long as that
        patience = {each: max(self._seconds, float(said.get("lease", 0))) for each, said in beats.items()}
        return {each for each, (_, since) in self._heard.items() if now - since > patience.get(each, self._seconds)}

    def _listens(self) -> bool:
        return time.monotonic() < self._listened + self._seconds / 2

    def release_of_here(self) -> None:
        """Put back into the queue what ran from this folder on this machine, once nothing does any more.

        Raises:
            ConfigError: The study is a file, and another machine is at it.
        """
        beats = beating(self._storage)
        here = {name for name, said in beats.items() if said.items() >= self._here.items()}
        if self._storage.is_file:  # then nobody else can have run anything
            self._refuse_other_machines(self._changing(beats))  # but where machines do not see each other's locks
            here = self._owners() | beats.keys()
        self._release(here, "interrupted", counts=False)

    def _changing(self, beats: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Those of other machines' beats that are not left from one that has gone, seen by waiting for the next."""
        others = {name: said for name, said in beats.items() if said["host"] != self._here["host"]}
        if others:
            time.sleep(1.5 * max(float(said.get("lease", 0)) for said in others.values()) / _BEATS)
        now = beating(self._storage)
        return {name: said for name, said in others.items() if now.get(name, said) != said}

    def _refuse_other_machines(self, beats: Mapping[str, Mapping[str, Any]]) -> None:
        for said in beats.values():
            if said["host"] != self._here["host"]:
                msg = (
                    f"the study in {self._here['folder']} is a file, and {said['host']} is at work on it; SQLite "
                    "serves one machine: stop it there, or keep studies of several in PostgreSQL"
                )
                raise ConfigError(msg)

    def _owners(self) -> set[str]:
        running = [trial for purpose in PURPOSES for trial in self._storage.trials(purpose, TrialState.RUNNING)]
        return {supervisor_of(trial.user_attrs["owner"]) for trial in running}

    def _release(self, dead: set[str], detail: str, *, counts: bool = True) -> None:
        for purpose in PURPOSES:
            self._storage.release(purpose, lambda owner: supervisor_of(owner) in dead, detail, counts=counts)
        for each in dead:
            self._storage.forget(_PREFIX + each)


def beating(storage: Storage) -> dict[str, Mapping[str, Any]]:
    """What each supervisor said last: its beat, its host and the study folder it works from, there."""
    return {key.removeprefix(_PREFIX): value for key, value in storage.said().items() if key.startswith(_PREFIX)}
