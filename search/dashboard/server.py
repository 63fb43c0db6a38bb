"""Serves the dashboard: an address, a thread for each request, and a clean end."""

import gc
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from search.config import StudyConfig
from search.dashboard.guard import Guard, is_loopback, own_hosts
from search.errors import ConfigError
from search.study import Storage


class _Handler(WSGIRequestHandler):
    timeout = 30  # seconds without a word, after which a connection is given up

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for what the command says."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a browser that went away is no error."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def serve(
    folder: Path,
    config: StudyConfig,
    storage: Storage,
    *,
    host: str,
    port: int,
    edits: bool,
    allow_code: bool = False,
    say: Callable[[str], None],
) -> None:
    """Serve a study's dashboard until something raises, such as a signal's handler.

    Args:
        folder: The study folder.
        config: Its configuration.
        storage: Its storage, open.
        host: Address or name to bind to.
        port: Port to bind to; 0 for any free one.
        edits: Whether notes may be written.
        allow_code: Whether pictures may be made with the code that the configuration names.
        say: Called with the address to open, once the port is ours.

    Raises:
        ConfigError: The port is taken, or the host is none of this machine's.
    """
    server = _bind(host, port)
    token = None if is_loopback(host) else secrets.token_urlsafe(32)
    gc.disable()  # until the first look is over, which makes no waste: 5,000 trials are read in 0.9 s, not 1.9
    number = storage.backend.get_study_id_from_name(config.name)
    say(_address(host, server.server_port, number, token))

    with _without_scikit_learn():
        from search.dashboard.live import Live  # a browser may already wait in line

    live = Live(folder, config, storage, edits=edits, allow_code=allow_code)
    live.start()
    names = (socket.gethostname(), socket.gethostname().partition(".")[0])
    server.set_app(Guard(live, own_hosts(host, names), token, edits=edits, file_names=live.file_name))
    try:
        server.serve_forever()
    finally:
        live.end()
        server.server_close()


@contextmanager
def _without_scikit_learn() -> Iterator[None]:
    """Let nothing import it in here.

    Optuna does for two estimates of importance which the dashboard never asks for, and is content where there is none;
    it takes most of a second, more than all else that is loaded here together.
    """
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # by which Python knows a module as missing
    try:
        yield
    finally:
        del sys.modules["sklearn"]


def _bind(host: str, port: int) -> _Server:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        kind = _Server6 if family == socket.AF_INET6 else _Server
        return kind((str(address[0]), port), _Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{host}:{port} cannot be served ({reason}); give another with --port, 0 for any free one, or --host"
        raise ConfigError(msg) from None


def _address(host: str, port: int, study: int, token: str | None) -> str:
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/dashboard/studies/{study}" + (f"?token={token}" if token else "")
