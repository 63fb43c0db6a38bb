"""Faults of where a study lies: a full disk, study files that are damaged."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.campaign import Outcome
from faults.invariants import relaunch
from faults.studies import Ground


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[bool]:
    """In here a folder is a disk of its own; yields False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garble(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 999)


def _blot(path: Path) -> None:
    """Overwrite the middle half, which leaves the header whole."""
    content = bytearray(path.read_bytes())
    quarter = len(content) // 4
    content[quarter : 3 * quarter] = b"\xa5" * (2 * quarter)
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: tuple[Callable[[Path], None], ...] = (_halve, _garble, _blot, _empty)


def damage(at: Ground, what: Callable[[Path], None]) -> Outcome:
    """Damage a copy of a study that has ended, and launch that: it must be refused, and nothing in it touched.

    On a server the file that names it is damaged, which may then name another one.
    """
    name = "storage.url" if at.server else "study.db"
    copy = at.folder.with_name(f"{at.folder.name}-damaged")
    shutil.copytree(at.folder, copy, ignore=shutil.ignore_patterns("filler"))
    what(copy / name)
    before = _contents(copy)
    shutil.copy(at.config, copy.with_suffix(".yaml"))
    ended = relaunch(Ground(copy, at.environment, at.server))
    outcome = Outcome(f"damaged: {what.__name__.strip('_')}", at.kind)
    outcome.injected["a study file is damaged"] += 1
    if ended.returncode not in ((3, 5) if at.server else (5,)) or "Traceback" in ended.stderr:
        outcome.wrong.append(f"exit {ended.returncode}: {ended.stderr[-800:]}")
    after = _contents(copy)
    outcome.wrong += [f"{name} was changed" for name in before if before[name] != after.get(name)]
    shutil.rmtree(copy)
    return outcome


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
