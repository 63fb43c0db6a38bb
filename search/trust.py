"""What a study folder may ask of whoever opens it: to be read, and nothing besides unless its user says so.

A configuration passed by hand is its user's own and may name code. The one that lies in a study folder, or in what a
study exported, may be a stranger's: nothing it names is imported or fetched, and nothing is written through its links.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from search import configfile, folder
from search.config import StudyConfig
from search.errors import ConfigError, StorageError

PERMISSION = "--allow-code"
"""The option by which a command's user takes the code and the data that a folder names for their own."""
_WRITTEN_THROUGH = (
    *("study.db", "study.db-journal", "study.db-wal", "study.db-shm", "storage.url"),
    *(".lock", ".writing.lock", "config.yaml"),
)
_WRITTEN_INTO = ("figures", "best", "trained")


def enter(study: str) -> Path:
    """The folder of an existing study, given as a path or as a name below `studies/`.

    Raises:
        StorageError: Neither is a study folder, or a link in it leads elsewhere.
    """
    where = folder.find(study)
    refuse_links(where)
    return where


def kept_config(where: Path, overrides: Sequence[str] = (), *, allow_code: bool) -> StudyConfig:
    """The configuration in a study folder, for what needs the code it may name.

    Args:
        where: The folder.
        overrides: Values to use in place of its own, as `--set` takes them.
        allow_code: Whether it may name code.

    Raises:
        ConfigError: It cannot be read, or names code and `allow_code` is off.
    """
    path = where / "config.yaml"
    config = configfile.read(path, overrides)
    if not allow_code:
        refuse_code(config, path)
    return config


def refuse_code(config: StudyConfig, path: Path, *, of_data: bool = True) -> None:
    """Refuse a configuration that names code.

    Args:
        config: It.
        path: The file it was read from.
        of_data: Whether its data are needed, and not its network alone.

    Raises:
        ConfigError: With the functions and how to allow them.
    """
    factories = {"network.factory": config.network.factory, "data.factory": config.data.factory if of_data else None}
    named = [f"{key} {function}" for key, function in factories.items() if function is not None]
    if named:
        msg = (
            f"{path} names code of its own, {' and '.join(named)}, which is not imported from a folder that may be "
            f"anybody's; if you trust that code, add {PERMISSION} (in Python, allow_code=True)"
        )
        raise ConfigError(msg)


def without_fetching(config: StudyConfig) -> StudyConfig:
    """The same, but data that are not there are not fetched, since they would be written wherever it says."""
    return config.model_copy(update={"data": config.data.model_copy(update={"download": False})})


def refuse_links(where: Path) -> None:
    """Refuse a folder in which what is written would land elsewhere.

    Args:
        where: A study folder or an exported one; it may itself be reached by a link.

    Raises:
        StorageError: A link leads out of it.
    """
    inside = where.resolve()
    for path in _written(where):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            msg = f"{path} is a link to {path.readlink()}, out of the study folder; put what it leads to in its place"
            raise StorageError(msg)


def _written(where: Path) -> Iterator[Path]:
    yield from (where / name for name in _WRITTEN_THROUGH)
    for name in _WRITTEN_INTO:
        yield where / name
        yield from (where / name).rglob("*")
