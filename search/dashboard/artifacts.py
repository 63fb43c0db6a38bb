"""Files of the study folder as the dashboard's artifacts: read where they lie, never copied, never written."""

import json
import mimetypes
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from optuna.artifacts.exceptions import ArtifactNotFound

_SHOWN = ("report.html", "verdict.json", "trials.csv", "runs.csv")
_FOLDERS = ("figures", "best")
_REFUSED = "the files of a study folder are read only here"


class FolderArtifacts:
    """An artifact store over the files a study writes for people.

    A file's id follows from its path, so addresses hold over restarts. Links are not followed, neither for the file
    nor for a folder above it: what lies outside the study folder is nobody's business.

    Args:
        folder: The study folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def described(self) -> dict[str, str]:
        """By file, in the form the dashboard reads: the attribute of the study that makes it an artifact."""
        return {_id(path): _meta(path) for path in self.paths()}

    def paths(self) -> Iterator[Path]:
        """The files there are, relative to the study folder."""
        for name in _SHOWN:
            if _is_plain(self._folder / name):
                yield Path(name)
        for name in _FOLDERS:
            for root, folders, files in os.walk(self._folder / name):  # which does not follow links
                folders.sort()
                kept = (
                    Path(root, file)
                    for file in sorted(files)
                    if not file.startswith(".") and not file.endswith(".svg")
                )
                yield from (path.relative_to(self._folder) for path in kept if _is_plain(path))

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file by its id.

        Raises:
            ArtifactNotFound: None of the files there are has it, or the file cannot be read.
        """
        for path in self.paths():
            if _id(path) == artifact_id:
                try:
                    return _open_below(self._folder, path)
                except OSError as error:
                    raise ArtifactNotFound(str(path)) from error
        raise ArtifactNotFound(artifact_id)

    def file_name(self, artifact_id: str) -> str | None:
        """A file's name by its id; None where there is none."""
        return next((path.name for path in self.paths() if _id(path) == artifact_id), None)

    def write(self, artifact_id: str, content_body: BinaryIO) -> NoReturn:
        """Refused."""
        raise PermissionError(_REFUSED)

    def remove(self, artifact_id: str) -> NoReturn:
        """Refused."""
        raise PermissionError(_REFUSED)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _open_below(folder: Path, path: Path) -> BinaryIO:
    """Open a file, part by part, so that no link put in its place in the meantime is followed."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.fdopen(os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at), "rb")
    finally:
        os.close(at)


def _id(path: Path) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path.as_posix()))


def _meta(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    name = path.as_posix() if path.parent.name else f"./{path}"  # the page sorts by name: the report comes first
    return json.dumps({"artifact_id": _id(path), "filename": name, "mimetype": kind, "encoding": None})
