"""A PostgreSQL server of the tests' own: in a folder for the time being, on a port of this machine only."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import pytest
from sqlalchemy.engine import URL

NEEDED = os.environ.get("FILTER_SEARCH_NEEDS_POSTGRES") == "1"
PASSWORD = "p@ss/w:rd%"  # of characters that mean something in a URL
_USER = "filter_search"
_SECONDS = 30


class Postgres:
    """A server that can be stopped and started again, on the same port with the same data.

    It ends with the tests, even with those that are killed.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._as_owner = ["setpriv"]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self._as_owner += [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        self._server: subprocess.Popen | None = None
        self._initialise()
        self.start()

    def _initialise(self) -> None:
        (self._folder / "password").write_text(PASSWORD)
        (self._folder / "password").chmod(0o644)
        command = [*self._as_owner, str(self._binaries / "initdb"), "--pgdata", str(self._folder / "data")]
        command += ["--username", _USER, "--pwfile", str(self._folder / "password"), "--auth=scram-sha-256"]
        subprocess.run([*command, "--encoding=UTF8", "--locale=C", "--no-sync"], check=True, capture_output=True)

    @property
    def pid(self) -> int:
        """The process that all of the server's others descend from, while it runs."""
        assert self._server is not None
        return self._server.pid

    def url(self, database: str) -> URL:
        """The URL of a database made anew, whatever it held before."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self._url("postgres").set(drivername="postgresql").render_as_string(False)) as connection:
            connection.autocommit = True
            for statement in ("DROP DATABASE IF EXISTS {} WITH (FORCE)", "CREATE DATABASE {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(database)))
        return self._url(database)

    def _url(self, database: str) -> URL:
        return URL.create("postgresql+psycopg", _USER, PASSWORD, "127.0.0.1", self.port, database)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        settings += ["max_connections=200", "shared_buffers=32MB", "timezone=UTC", "logging_collector=off"]
        command = [*self._as_owner, "--pdeathsig=QUIT", str(self._binaries / "postgres"), "-D", self._folder / "data"]
        started: SimpleQueue[subprocess.Popen] = SimpleQueue()

        def tend() -> None:
            """Linux ends the server with the thread that started it, so that one stays."""
            with (self._folder / "log").open("ab") as log:
                server = subprocess.Popen(
                    [*command, *(word for each in settings for word in ("-c", each))],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # an interrupt at the terminal is for the tests
                )
            started.put(server)
            server.wait()

        threading.Thread(target=tend, daemon=True).start()
        self._server = started.get(timeout=_SECONDS)
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                pytest.fail((self._folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def _answers(self) -> bool:
        asked = [self._binaries / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
        return subprocess.run(asked).returncode == 0

    def stop(self, mode: str = "fast") -> None:
        """Stop the server and wait until it has gone.

        Args:
            mode: `fast` ends connections and transactions in order; `immediate` drops everything, as a crash does.
        """
        data = ["--pgdata", str(self._folder / "data")]
        command = [*self._as_owner, str(self._binaries / "pg_ctl"), "stop", *data, "--mode", mode, "--silent"]
        subprocess.run(command, check=True, timeout=_SECONDS)
        assert self._server is not None
        self._server.wait(_SECONDS)
        self._server = None

    def end(self) -> None:
        """Stop the server if it runs and remove what it kept."""
        if self._server is not None:
            self.stop("immediate")
        shutil.rmtree(self._folder)


def binaries() -> Path | None:
    """The folder of the newest server's programs; Debian keeps them off the path."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    newest = max(found, key=lambda path: float(path.parts[-3]), default=on_path and Path(on_path).resolve())
    return Path(newest).parent if newest else None


@pytest.fixture(scope="session")
def postgres():
    programs = binaries()
    if programs is None or shutil.which("setpriv") is None:
        message = (
            "no PostgreSQL server on this machine; install Debian's, or leave these tests to a machine that has it"
        )
        (pytest.fail if NEEDED else pytest.skip)(message)
    server = Postgres(programs, Path(tempfile.mkdtemp(prefix="filter-search-postgres-")))
    yield server
    server.end()
