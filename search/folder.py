"""The study folder: where a study's files lie, who may use it, what is written about the machine.

Nothing is written before a study is known to be runnable; what others read is replaced whole, never half written.
"""

import fcntl
import json
import math
import os
import platform
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search.errors import ConfigError, StorageError

STUDIES = Path("studies")
# What a terminal might obey, and JSON would not escape.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_MOMENT_SECONDS, _PATIENCE_SECONDS = 0.5, 10.0
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "optuna", "numpy", "scipy", "scikit-learn", "pydantic")


def find(study: str) -> Path:
    """The folder of an existing study, given as a path or as a name below `studies/`.

    Raises:
        StorageError: Neither is a study folder.
    """
    for folder in (Path(study), STUDIES / study):
        if (folder / "config.yaml").is_file():
            return folder
    msg = f"{study!r} is no study folder (none with a config.yaml); give the path of one, or a name below {STUDIES}/"
    raise StorageError(msg)


def resume_command(folder: Path) -> str:
    """What continues the study in a folder."""
    return shlex.join(["filter-search", "run", str(folder / "config.yaml"), "--out", str(folder), "--resume"])


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file in one step.

    Raises:
        StorageError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # process ids repeat between containers
    try:
        with temporary.open("xb") as file:  # new: what is written follows no link
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name with nothing in it
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        msg = f"{path} cannot be written ({error.strerror}); make room or give another folder with --out"
        raise StorageError(msg) from None


def check_startable(folder: Path, resume: bool) -> None:
    """Refuse in milliseconds what would otherwise be refused once everything has been loaded; writes nothing.

    Raises:
        ConfigError: A study exists and `resume` is off, or something that is none is in its place.
        StorageError: The folder cannot be created or written.
    """
    if any(os.path.lexists(folder / name) for name in ("study.db", "storage.url")):
        refuse_existing(str(folder), resume)
    elif os.path.lexists(folder / "config.yaml"):
        msg = (
            f"{folder} holds a config.yaml, which a study would overwrite, but no study.db; give another folder with "
            "--out, or move the file away"
        )
        raise ConfigError(msg)
    nearest = next(each for each in (folder, *folder.absolute().parents) if os.access(each, os.F_OK))
    if not nearest.is_dir():
        msg = f"study folder {folder} cannot be made ({nearest} is no folder); give a writable one with --out"
        raise StorageError(msg)
    if not os.access(nearest, os.W_OK | os.X_OK):
        msg = f"study folder {folder} cannot be written ({nearest} is not writable); give another with --out"
        raise StorageError(msg)


def refuse_existing(where: str, resume: bool) -> None:
    """Refuse to start a study that there is.

    Args:
        where: The folder or storage it is in.
        resume: Whether it is to be continued, which is no start.

    Raises:
        ConfigError: It is not.
    """
    if not resume:
        msg = f"a study exists in {where}; add --resume to continue it, or give another folder with --out"
        raise ConfigError(msg)


def make(folder: Path) -> None:
    """Create a study folder.

    Raises:
        StorageError: It cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"study folder {folder} cannot be made ({error.strerror}); give a writable one with --out"
        raise StorageError(msg) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"study folder {folder} is not writable; give another with --out"
        raise StorageError(msg)


@dataclass(frozen=True)
class Membership:
    """A share in the running of a study from its folder.

    Attributes:
        lock: Descriptor of the lock, for workers to inherit: it lasts until the last process that holds it has gone.
        alone: Whether nobody else holds it, and nobody can until it is shared.
    """

    lock: int
    alone: bool

    def share(self) -> None:
        """Let others in."""
        fcntl.flock(self.lock, fcntl.LOCK_SH)


@contextmanager
def joined(folder: Path) -> Iterator[Membership]:
    """Run the study of this folder, together with whoever does so already.

    Raises:
        ConfigError: A process runs it that needs it for itself.
        StorageError: The lock cannot be written.
    """
    with _opened(folder / ".lock") as descriptor:
        # A moment for what a killed coordinator leaves to end: only who is alone knows that nothing is running.
        alone = _flocked(descriptor, fcntl.LOCK_EX, _MOMENT_SECONDS)
        if not alone and not _flocked(descriptor, fcntl.LOCK_SH, _PATIENCE_SECONDS):
            raise ConfigError(_taken(folder))
        yield Membership(descriptor, alone)


@contextmanager
def locked(folder: Path, name: str = ".lock", patience_seconds: float = _PATIENCE_SECONDS) -> Iterator[int]:
    """Hold the study folder for this process, and the workers that inherit the lock, alone.

    Yields:
        The lock's file descriptor, for workers to inherit.

    Raises:
        ConfigError: Another process runs the study.
        StorageError: The lock cannot be written.
    """
    with _opened(folder / name) as descriptor:
        if not _flocked(descriptor, fcntl.LOCK_EX, patience_seconds):
            raise ConfigError(_taken(folder))
        yield descriptor


def writing(folder: Path) -> AbstractContextManager[int]:
    """Hold what is written about a study, for as long as it takes to write it."""
    return locked(folder, ".writing.lock", math.inf)


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        msg = f"study folder {lock.parent} is not writable ({error.strerror}); give another with --out"
        raise StorageError(msg) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flocked(descriptor: int, how: int, patience_seconds: float) -> bool:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def _taken(folder: Path) -> str:
    return f"study {folder} is being run by another process; wait for it or stop it first"


def is_running(folder: Path) -> bool:
    """Whether a coordinator, or a worker one left behind, holds the study folder."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR)
    except OSError:  # nobody ever ran it here, or it is not ours to run
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def environment(command: Sequence[str], seed: int, workers: int, device: str) -> dict[str, Any]:
    """Versions, hardware, commit, command and seed: what it takes to repeat a study."""
    return {
        "schema": 1,
        "command": shlex.join(command),
        "seed": seed,
        "filter_search": version("filter-search"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "hardware": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "device": device,
            "workers": workers,
        },
        "system": f"{platform.system()} {platform.machine()}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def note_environment(folder: Path, found: Mapping[str, Any]) -> None:
    """Add to environment.json what a launch found out about the machine."""
    path = folder / "environment.json"
    known = json.loads(path.read_bytes())
    if known != (noted := known | found):
        write_json(path, noted)


def write_json(path: Path, values: object) -> None:
    """Write plain values as indented JSON."""
    write_whole(path, json_text(values))


def json_text(values: object) -> str:
    """Plain values as every JSON file here holds them."""
    return json.dumps(values, indent=2, ensure_ascii=False).translate(_ESCAPED) + "\n"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the code in use, when it runs from a checkout; `+` marks local changes."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
