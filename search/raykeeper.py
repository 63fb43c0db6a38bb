"""What runs on the nodes of a Ray cluster: an actor that keeps one `filter-search worker` process.

Light, since every actor loads it: torch is the worker's alone. No job passes through Ray; what is to be done is in the
study's storage, where the worker finds it.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.lifeline import end_with_parent

_LAST_WORDS = 1800  # characters, as many as are kept of a local worker


@dataclass(frozen=True)
class Task:
    """What to start, wherever it is.

    Attributes:
        command: What follows `python`, up to the study.
        options: What follows the study.
        folder: The study folder, where a node has it.
        here: The folder the launch was begun in, where code of the user's may lie.
        files: Contents of the files by which a node without the folder knows the study.
        environment: Variables that say where the storage is. They may hold a password, so neither a command line nor
            a log nor Ray's tables get to see them.
    """

    command: Sequence[str]
    options: Sequence[str]
    folder: Path
    here: Path
    files: Mapping[str, bytes] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Ended:
    """How a worker process ended.

    Attributes:
        supervisor: The start of the name it claims trials by.
        status: As `subprocess` has it.
        said: What it said last.
    """

    supervisor: str
    status: int
    said: str


class Keeper:
    """Keeps one worker process, which ends when this actor does, whatever ends it.

    `run` waits for as long as the worker lives, so `drain` needs a thread of its own.

    Args:
        task: What to start.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._starting = threading.Lock()
        self._drained = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Ended | None:
        """Start the worker and wait until it has ended; None where it was asked to end before it began."""
        with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="filter-search-") as spare:
            command = [*self._task.command, str(self._folder(Path(spare))), *self._task.options]
            with self._starting:
                if self._drained:
                    return None
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, str(os.getpid()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=self._task.here if self._task.here.is_dir() else None,
                    env=os.environ | self._task.environment,
                )
            status = self._process.wait()
            log.seek(0)
            said = log.read()[-_LAST_WORDS:].decode(errors="replace")
            return Ended(f"{socket.gethostname()}:{self._process.pid}:", status, said)

    def drain(self) -> None:
        """Ask the worker to end after the jobs at hand, and start no other."""
        with self._starting:
            self._drained = True
            if self._process and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)

    def _folder(self, spare: Path) -> Path:
        """The study folder; where this node has none, a temporary one that knows the study's storage."""
        if (self._task.folder / "config.yaml").is_file():
            return self._task.folder
        folder = spare / self._task.folder.name
        folder.mkdir()
        for name, content in self._task.files.items():
            (folder / name).write_bytes(content)
        return folder


if __name__ == "__main__":
    end_with_parent()
    if os.getppid() == int(sys.argv[1]):  # else it ended before this asked to end with it
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
