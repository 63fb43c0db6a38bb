"""Where a study's storage is when it is a server's: its URL, and who may see which part of it.

The environment gives the URL, password and all. A study folder keeps it without the password, and what a folder says
is believed no further than where the storage is: options that would load code or read files here are refused.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url

from search.errors import ConfigError, StorageError
from search.folder import write_whole

VARIABLE = "FILTER_SEARCH_STORAGE"
FILE_VARIABLE = "FILTER_SEARCH_STORAGE_FILE"
_FORM = "write postgresql://user:password@host:port/database, with every character of %:/?#@ in the password as %XX"
_DRIVER = "postgresql+psycopg"
_NAMES = ("postgres", "postgresql", _DRIVER)
_MOST_CHARACTERS = 4096
# What a folder may say beside user, host, port and database: how to connect, nothing secret, no file but certificates.
_OPTIONS = (
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "channel_binding",
    "connect_timeout",
    "target_session_attrs",
    "application_name",
)


def asked() -> URL | None:
    """The storage the environment names, its password included; None where it names none.

    Raises:
        ConfigError: It is named twice, cannot be read, is no PostgreSQL URL, or the driver is not installed.
    """
    text, path = os.environ.get(VARIABLE), os.environ.get(FILE_VARIABLE)
    if not text and not path:
        return None
    if text and path:
        msg = f"{VARIABLE} and {FILE_VARIABLE} are both set, and a study has one storage; unset one of them"
        raise ConfigError(msg)
    source = VARIABLE if text else f"{FILE_VARIABLE} ({path})"
    url = _parsed(text.strip() if text else _first_line(Path(str(path))), source)
    _check_driver()
    return url


def without_password(url: URL) -> str:
    """A URL as files and messages show it: where the storage is and how to connect, nothing secret."""
    shown = {key: value for key, value in url.query.items() if key in _OPTIONS}
    return url.set(query=shown)._replace(password=None).render_as_string(hide_password=False)


def kept(folder: Path) -> URL | None:
    """The storage a study folder names, without a password; None where it names none.

    Raises:
        StorageError: `storage.url` cannot be read, or holds what no study wrote.
    """
    path = folder / "storage.url"
    if not os.path.lexists(path):
        return None
    if not path.is_file():  # such as a pipe, which would be waited for
        msg = f"{path} is no file; restore the study's own, which holds the URL of its storage"
        raise StorageError(msg)
    try:
        url = _parsed(_first_line(path), str(path))
    except ConfigError as error:
        raise StorageError(str(error)) from None
    if without_password(url) != url.render_as_string(hide_password=False):
        msg = (
            f"{path} says more than where the storage is; it may hold user, host, port, database and "
            f"{', '.join(_OPTIONS)}: remove the rest, and give passwords by {VARIABLE} or ~/.pgpass"
        )
        raise StorageError(msg)
    return url


def keep(folder: Path, url: URL) -> None:
    """Have a study folder name its storage, without the password.

    Raises:
        StorageError: The file cannot be written.
    """
    write_whole(folder / "storage.url", without_password(url) + "\n")


def of(folder: Path) -> URL | None:
    """How to connect to the storage of a study folder: as the environment says, unless the folder names another.

    Returns:
        The environment's where the folder names none; None where neither does, and `study.db` is in the folder.

    Raises:
        ConfigError: The environment names another storage, or one that cannot be used, or the driver is not installed.
        StorageError: `storage.url` cannot be read, or holds what no study wrote.
    """
    named, given = kept(folder), asked()
    if named is None:
        return given
    _check_driver()
    if given is None:
        return named
    if _place(given) != _place(named):
        msg = (
            f"the study in {folder} is kept in {without_password(named)}, but the environment names "
            f"{without_password(given)}; unset {VARIABLE} and {FILE_VARIABLE}, or have them name the study's own"
        )
        raise ConfigError(msg)
    return given


def redacted(text: str, url: URL) -> str:
    """A text with the URL's password as *** wherever it stands, be it plain, percent-encoded or escaped."""
    for secret in (url.password, url.query.get("password"), url.query.get("sslpassword")):
        if secret:
            text = re.sub("".join(_any_form(character) for character in str(secret)), "***", text)
    return text


def _any_form(character: str) -> str:
    """A pattern for a character as a URL, a Python literal or JSON may write it."""
    encoded = "".join(f"%{byte:02x}" for byte in character.encode())
    plain = {character, repr(character)[1:-1], json.dumps(character)[1:-1], quote(character), f"\\{character}"}
    plain |= {"+"} if character == " " else set()
    longest_first = sorted(plain, key=lambda form: (-len(form), form))
    return f"(?:(?i:{encoded})|{'|'.join(re.escape(form) for form in longest_first)})"


def _parsed(text: str, source: str) -> URL:
    """A PostgreSQL URL with user, password and database in their places, and psycopg as its driver.

    Raises:
        ConfigError: It is none; whatever came is not repeated, since it may be a password.
    """
    # An @ in a password would be taken for its end, and the rest for a host or database, which are shown.
    if not text.isprintable() or len(text) > _MOST_CHARACTERS or text.count("@") > 1:
        raise ConfigError(_malformed(source))
    try:
        url = make_url(text)
    except Exception:  # make_url raises whatever int() and its parts raise, with the text in it
        raise ConfigError(_malformed(source)) from None
    if url.drivername not in _NAMES:
        hint = f"give a PostgreSQL one: {_FORM}"
        if url.get_backend_name() == "sqlite":
            hint = "for SQLite name none: the study is then kept in its folder's study.db"
        msg = f"{source} names a storage of the kind {url.drivername}; {hint}"
        raise ConfigError(msg)
    parts = {name: _single(url.query, name, source) for name in ("user", "password", "dbname")}
    url = url.difference_update_query(parts).set(drivername=_DRIVER)
    own = {"username": parts["user"], "password": parts["password"], "database": parts["dbname"]}
    url = url.set(**{name: value for name, value in own.items() if value is not None})  # type: ignore[arg-type]
    if any(mark in part for part in (url.host, url.username, url.database) if part for mark in "@?#"):
        raise ConfigError(_malformed(source))
    return url


def _single(query: Mapping[str, str | tuple[str, ...]], name: str, source: str) -> str | None:
    value = query.get(name)
    if isinstance(value, tuple):
        raise ConfigError(_malformed(source))
    return value


def _malformed(source: str) -> str:
    return f"{source} holds no URL of a storage; {_FORM}"


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline(_MOST_CHARACTERS + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"{path} cannot be read ({reason}); have its first line hold the storage's URL"
        raise ConfigError(msg) from None


def _place(url: URL) -> tuple[object, ...]:
    """What two URLs of one storage agree in."""
    host = url.query.get("host", (url.host or "").lower())
    return host, url.query.get("port", url.port or 5432), url.database, url.username


def _check_driver() -> None:
    try:
        import psycopg  # noqa: F401 # an extra, asked for here so that its absence is told before the work
    except ImportError:
        msg = "a study in PostgreSQL needs psycopg, which is not installed; pip install 'filter-search[postgres]'"
        raise ConfigError(msg) from None
