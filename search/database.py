"""The database a study is kept in: where it is, how it is reached, and what to say where it cannot be used."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from search import storageurl
from search.errors import ConfigError, StorageError
from search.printable import printable
from search.trialstore import PATIENCE_SECONDS, TrialStore, patiently

_CREATION_LOCK = 7_300_821_945  # one of PostgreSQL's advisory locks, which are numbers
_CONNECT = {
    "application_name": "filter-search",
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,  # milliseconds: a host that vanishes is noticed
}
# What a process that is stopped in the middle of a transaction holds, it does not hold for ever.
_OPTIONS = "-c idle_in_transaction_session_timeout=30000"

# Of why a connection could not be opened psycopg tells the text alone.
_FAILED = re.compile(r" failed: (?:FATAL: +)?(?!connection to server)(.+)")
_AWAY = re.compile(
    "Connection (?:refused|reset|aborted|timed out)|timeout expired|No route to host|Network is unreachable|"
    "Host is down|Cannot assign requested address|Address family not supported|Temporary failure in name resolution|"
    "No such file or directory|"  # of a socket
    "server closed the connection|could not receive data|SSL SYSCALL error|"
    "sorry, too many clients|too many connections for|remaining connection slots|"
    "the database system is (?:starting up|shutting down|in recovery mode|not yet accepting connections)"
)

logging.getLogger("psycopg").setLevel(logging.ERROR)  # warns of each connection that a server broke

REFUSALS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
"""What a storage that cannot be read or written raises."""


def place_of(folder: Path) -> Path | URL:
    """Where the study of a folder is kept.

    Raises:
        StorageError: There is none.
    """
    if (folder / "study.db").is_file():
        return folder / "study.db"
    if url := storageurl.of(folder):
        return url
    msg = f"{folder} holds no study.db; name the folder of a study that `filter-search run` made"
    raise StorageError(msg)


def keep(folder: Path) -> None:
    """Have a folder name the server that the environment names, unless its study is kept there already.

    Raises:
        StorageError: It cannot be written.
    """
    place = place_of(folder)
    if isinstance(place, URL) and storageurl.kept(folder) is None:
        storageurl.keep(folder, place)


def refuse_two_places(folder: Path) -> None:
    """Refuse to work on a study's file where the environment says that studies are kept elsewhere.

    Raises:
        ConfigError: It does.
    """
    if (folder / "study.db").is_file() and storageurl.asked():
        msg = (
            f"the study in {folder} is a file, study.db, but {storageurl.VARIABLE} names a server; unset it to go on "
            "with the file, or begin on the server with --out and another folder"
        )
        raise ConfigError(msg)


@contextmanager
def one_at_a_time(url: URL) -> Iterator[None]:
    """In here no other process makes tables or studies in a server's database; what waits there, waits.

    Raises:
        StorageError: The server refuses, or is away for too long.
    """
    # without a time limit for locks: to wait for one's turn is what this one is for
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=_arguments(url, _OPTIONS))
    try:
        with patiently(engine.connect, passes=_away(url)) as connection:
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
            yield
    except REFUSALS as error:
        raise StorageError(_unusable(url, error)) from None


def wait_for(place: Path | URL) -> None:
    """Wait for a server that is away; before a lock is taken for which others wait less long.

    Raises:
        StorageError: It cannot be used, or is away for too long.
    """
    if isinstance(place, URL):
        connect(place, create=False, patient=True).disconnect()


def connect(place: Path | URL, *, create: bool, patient: bool = False) -> TrialStore:
    """A study's database, opened.

    Args:
        place: A file, or a server's URL.
        create: Whether to make its tables.
        patient: Whether to wait for a server that is away or has no connection free, as what launches work does.

    Raises:
        StorageError: It cannot be.
    """
    if isinstance(place, URL):
        url = place.render_as_string(hide_password=False)
        # one connection, which a server that was away does not spoil; more for what Optuna nests, and for beats
        kwargs: dict[str, Any] = {"pool_size": 1, "max_overflow": 3, "pool_pre_ping": True}
        kwargs["connect_args"] = _arguments(place, f"{_OPTIONS} -c lock_timeout=10000")
    else:
        url = f"sqlite:///{place.resolve()}"
        # The timeout outlasts every other worker's transaction, so a busy file is waited for, not failed on.
        # unpooled: a connection kept open by whoever looks on keeps SQLite's log beside the file
        kwargs = {"connect_args": {"timeout": 60}, "poolclass": NullPool}
    try:
        open_it = partial(RDBStorage, url, engine_kwargs=kwargs, skip_table_creation=not create)
        backend = patiently(open_it, passes=_away(place)) if patient else open_it()
    except (*REFUSALS, RuntimeError) as error:
        raise StorageError(_unusable(place, error)) from None
    return TrialStore(backend)


def _away(place: Path | URL) -> Callable[[Exception], bool]:
    """Tells whether what refuses to be opened is a server that may be there soon; says so once."""
    told = False

    def is_away(error: Exception) -> bool:
        nonlocal told
        reason = _reason(error)
        # a host may have several addresses: at each of them time has to mend what failed
        if not isinstance(place, URL) or not all(map(_AWAY.search, _FAILED.findall(reason) or [reason])):
            return False
        if not told:
            said = storageurl.redacted(reason.splitlines()[0], place)
            wait = f"waiting for it, {PATIENCE_SECONDS:g} seconds at most"
            sys.stderr.write(printable(f"filter-search: {named(place)} cannot be used yet ({said}); {wait}") + "\n")
        told = True
        return True

    return is_away


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """What the storage refuses in here, such as a full disk or a damaged file, becomes one message.

    Raises:
        StorageError: In place of what SQLAlchemy, or Optuna on top of it, raises.
    """
    try:
        yield
    except REFUSALS as error:
        raise StorageError(_unusable(place_of(folder), error)) from error


def _unusable(place: Path | URL, error: Exception) -> str:
    reason = _reason(error).splitlines()[0]
    if isinstance(place, URL):
        reason = storageurl.redacted(reason, place)
        return f"{named(place)} cannot be used for a study ({reason}); mend that, then go on with --resume"
    return f"{place} cannot be used as a study ({reason}); mend that, restore a copy or start anew in another folder"


def _reason(error: Exception) -> str:
    """What a database says of why it cannot be used."""
    cause = error.__cause__ or error
    return str(getattr(cause, "orig", cause))


def named(place: Path | URL) -> str:
    """A database as messages name it."""
    return storageurl.without_password(place) if isinstance(place, URL) else str(place)


def _arguments(url: URL, options: str) -> dict[str, Any]:
    """What psycopg is given beside a URL: limits, and options of the server's in front of the URL's own."""
    own: dict[str, Any] = {"options": f"{options} {url.query.get('options', '')}"}
    if not url.password and storageurl.asked() is None:
        own["password"] = ""  # PGPASSWORD is for no host that a folder names; ~/.pgpass says which it is for
    return _CONNECT | own
