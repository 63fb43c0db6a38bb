"""What a request must be to reach the dashboard: a WSGI layer that refuses the rest, and makes answers safe to show.

Optuna's dashboard has no authentication, no read-only mode and no check of the host, and serves artifacts as pages of
its own origin; whoever can reach it may delete a study. Knows requests and answers only, nothing of studies.
"""

import io
import ipaddress
import re
import secrets
from collections.abc import Callable, Iterable
from html import escape
from http.cookies import CookieError, SimpleCookie
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_COOKIE = "filter_search_token"
_READING = ("GET", "HEAD")
_NOTES = re.compile(r"/api/studies/\d+(/\d+)?/note")
_LARGEST_NOTE = 1_000_000  # bytes

# The dashboard's own, which needs eval for its parallel coordinates, with what it leaves open closed.
_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' data: 'unsafe-inline'; "
    "script-src 'self' 'unsafe-eval'; connect-src 'self'; frame-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_FILE_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REPLACED = {"content-security-policy", "access-control-allow-origin", *map(str.lower, _SAFE)}


class Guard:
    """A WSGI application before another.

    Args:
        inner: What answers the requests let through.
        hosts: Whether a Host header's name is one of ours; a page elsewhere can point its own name at this machine
            (DNS rebinding), and then its requests carry that name.
        token: What a visitor must bring once, as `?token=`; None where only this machine's users get here.
        edits: Whether notes may be written.
        file_names: The name to save an artifact under, by its id.
    """

    def __init__(
        self,
        inner: "WSGIApplication",
        hosts: Callable[[str], bool],
        token: str | None,
        *,
        edits: bool,
        file_names: Callable[[str], str | None],
    ) -> None:
        self._inner, self._hosts, self._token, self._edits = inner, hosts, token, edits
        self._file_names = file_names

    def __call__(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        if not self._hosts(host_name(environ.get("HTTP_HOST", ""))):
            said = "the dashboard does not answer to this host name; open the address it printed"
            return _refuse(start, "403 Forbidden", said)
        if self._token is not None:
            given = dict(parse_qsl(environ.get("QUERY_STRING", ""))).get("token")
            if given is not None and _same(given, self._token):
                return _admit(environ, start, self._token)
            if not _same(_cookie(environ), self._token):
                said = "the dashboard needs its token; open the whole address it printed"
                return _refuse(start, "403 Forbidden", said)
        if environ["REQUEST_METHOD"] not in _READING:
            refusal = self._why_not(environ)
            if refusal is not None:
                return _refuse(start, *refusal)
        path = environ.get("PATH_INFO", "")
        is_page = path in ("", "/") or path.startswith("/dashboard")
        begin = _safely(start, is_page=is_page, saved_as=self._saved_as(path))
        # What Optuna's application takes for granted, and its tracebacks, which belong on nobody's screen.
        asked = {"HTTP_ACCEPT_ENCODING": "identity"} | environ | {"wsgi.errors": io.StringIO()}
        if environ["REQUEST_METHOD"] == "HEAD":
            return _head_of(self._inner(asked | {"REQUEST_METHOD": "GET"}, begin))
        return self._inner(asked, begin)

    def _saved_as(self, path: str) -> str | None:
        """What a browser is to save an artifact as, in place of showing it; None for all else."""
        if not path.startswith("/artifacts/"):
            return None
        return PurePosixPath(self._file_names(path.rstrip("/").rpartition("/")[2]) or "file").name

    def _why_not(self, environ: "WSGIEnvironment") -> tuple[str, str] | None:
        """Status and reason to refuse what would write; None for a note that may be written."""
        if not self._edits:
            said = "the dashboard is read only; notes can be written where it is started with --allow-edit"
            return "405 Method Not Allowed", said
        if environ["REQUEST_METHOD"] != "PUT" or not _NOTES.fullmatch(environ.get("PATH_INFO", "")):
            said = "only notes can be written here: trials and studies are what the verdict rests on"
            return "403 Forbidden", said
        if not _is_from_here(environ):
            return "403 Forbidden", "another site's page may not write here"
        length = environ.get("CONTENT_LENGTH") or ""
        if not length.isdecimal() or int(length) > _LARGEST_NOTE:
            return "403 Forbidden", f"a note may have {_LARGEST_NOTE:,} bytes at most"
        return None


def own_hosts(bound: str, names: Iterable[str]) -> Callable[[str], bool]:
    """Which host names are ours.

    Args:
        bound: The address bound to. Bound to this machine's own, only its own names serve. Elsewhere addresses serve
            too: a name can be pointed anywhere, an address cannot.
        names: Further names of this machine.
    """
    known = {"localhost", bound.lower(), *(name.lower() for name in names)}
    local = is_loopback(bound)

    def is_ours(name: str) -> bool:
        if name.lower() in known:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not local

    return is_ours


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name or address in a Host header; empty for one that is none."""
    if re.search(r"[\s/@?#\\]", header):
        return ""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_from_here(environ: "WSGIEnvironment") -> bool:
    """Whether one of our own pages asks, or no browser at all."""
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site is not None and site != "same-origin":
        return False
    return origin is None or origin == f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}"


def _head_of(answered: Iterable[bytes]) -> list[bytes]:
    """Nothing, once the answer's status and headers have been given."""
    for _ in answered:
        break
    if hasattr(answered, "close"):
        answered.close()
    return []


def _cookie(environ: "WSGIEnvironment") -> str:
    try:
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    except CookieError:
        return ""
    return cookies[_COOKIE].value if _COOKIE in cookies else ""


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(errors="replace"), token.encode())


def _admit(environ: "WSGIEnvironment", start: "StartResponse", token: str) -> list[bytes]:
    """Keep the token as a cookie and open the page without it.

    By a page that goes on by itself: after a redirect from elsewhere, browsers would withhold a strict cookie.
    """
    others = [(key, value) for key, value in parse_qsl(environ.get("QUERY_STRING", "")) if key != "token"]
    path = "/" + environ.get("PATH_INFO", "").lstrip("/")
    address = escape(path + (f"?{urlencode(others)}" if others else ""))
    cookie = f"{_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"
    page = f'<!DOCTYPE html><meta http-equiv="refresh" content="0;url={address}"><title>Dashboard</title>'.encode()
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))]
    _safely(start)("200 OK", [*headers, ("Set-Cookie", cookie), ("Cache-Control", "no-store")])
    return [page]


def _refuse(start: "StartResponse", status: str, reason: str) -> list[bytes]:
    body = f"{reason}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    if status.startswith("405"):
        headers.append(("Allow", ", ".join(_READING)))
    _safely(start)(status, headers)
    return [body]


def _safely(start: "StartResponse", *, is_page: bool = False, saved_as: str | None = None) -> "StartResponse":
    """`start`, with headers that keep an answer from being more than was asked for."""

    def safe_start(status, headers, exc_info=None, /):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        kept = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
        kept += [*_SAFE.items(), ("Content-Security-Policy", _PAGE_POLICY if is_page else _FILE_POLICY)]
        if saved_as is not None:
            kept.append(("Content-Disposition", f"attachment; filename*=UTF-8''{quote(saved_as)}"))
        return start(status, kept, exc_info) if exc_info else start(status, kept)

    return safe_start
