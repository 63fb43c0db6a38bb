"""Keeps what the dashboard serves up to date: looks at the storage now and then, as cheaply as can be."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_dashboard import wsgi

from search import database
from search.annotations import Annotations, Moment
from search.config import StudyConfig
from search.dashboard.artifacts import FolderArtifacts
from search.dashboard.mirror import Mirror
from search.dashboard.page import Page
from search.dashboard.reading import read, signature
from search.dashboard.view import View, Viewer
from search.errors import StorageError
from search.printable import printable
from search.study import Storage
from search.trust import PERMISSION

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_PAUSE_SECONDS = 2.0
_SHARE = 10  # a look that took long is followed by that many times its length of leaving the storage alone
_ABOUT_STUDIES = ("/api/", "/artifacts/", "/csv/")
_PATIENCE_SECONDS = 60.0  # how long a first visitor waits for the first view


class Live:
    """A WSGI application over the latest view of a study.

    Args:
        folder: The study folder.
        config: Its configuration.
        storage: Its storage, open.
        edits: Whether what the guard lets through may write notes, which go to the storage itself.
        allow_code: Whether pictures may be made with the code that the configuration names.
    """

    def __init__(
        self, folder: Path, config: StudyConfig, storage: Storage, *, edits: bool, allow_code: bool = False
    ) -> None:
        self._folder, self._storage = folder, storage
        self._artifacts = FolderArtifacts(folder)
        self._viewer = Viewer(config, self._artifacts)
        self._writer = wsgi(storage.backend) if edits else None
        self._page = Page(wsgi(Mirror(())), edits=edits)
        self._view: View | None = None
        self._seen: object = None
        self._ready, self._stop, self._hurry = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="look", daemon=True)
        self._painter = Painter(folder, allow_code=allow_code)

    def start(self) -> None:
        """Begin to look; after the first look garbage is collected again."""
        self._thread.start()

    def end(self) -> None:
        """Leave nothing running."""
        self._stop.set()
        self._hurry.set()
        self._painter.end()

    def file_name(self, artifact_id: str) -> str | None:
        """The name to save an artifact under; None where there is none."""
        return self._artifacts.file_name(artifact_id)

    def __call__(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and self._writer is not None:
            answer: Iterable[bytes] = self._writer(environ, start)
            self._hurry.set()
            return answer
        if not environ["PATH_INFO"].startswith(_ABOUT_STUDIES):  # which a browser loads while the study is being read
            return self._page(environ, start)
        self._ready.wait(_PATIENCE_SECONDS)
        if self._view is None:
            start("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "10")])
            return [b"the study could not be read yet; reload in a moment\n"]
        return self._view(environ, start)

    def _keep_up(self) -> None:
        said: str | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with database.guarded(self._folder):
                    self._look()
                said = None
            except Exception as error:  # whatever it is, what was read before goes on being shown
                self._ready.set()  # and nobody waits for what may never come
                if str(error) != said:
                    said = str(error)
                    known = isinstance(error, StorageError)
                    shown = said if known else f"unexpected {error!r}"
                    sys.stderr.write(f"filter-search: {printable(shown)}\n")
            if not gc.isenabled():  # the first look is over, which somebody waited for
                gc.freeze()
                gc.enable()
                if sys.platform == "linux":  # where this is of one thread alone
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
            self._hurry.wait(max(_PAUSE_SECONDS, _SHARE * (time.monotonic() - began)))
            self._hurry.clear()

    def _look(self) -> None:
        """Look once, and show what is new."""
        painted = self._painter.take()
        now = signature(self._storage)
        if self._view is None or painted or now != self._seen:
            self._view = self._viewer.view(read(self._storage), self._painter.made)
            self._seen = now
            self._ready.set()
        elif self._view.outdated:  # not before a look that found nothing new, so never in the way of a first visitor
            self._painter.paint(self._view.moment)


class Painter:
    """Has a study's words and pictures made by a process of its own, which loads what they need and then ends.

    Args:
        folder: The study folder.
        allow_code: Whether it may import the code that the configuration names.
    """

    def __init__(self, folder: Path, *, allow_code: bool = False) -> None:
        # -P: what lies in the folder the command runs in, such as a stranger's, is no module
        self._command = [sys.executable, "-P", "-m", "search.dashboard.painter", str(folder)]
        self._command += [PERMISSION] * allow_code
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="filter-search-")
        self._made, self._said = (Path(self._scratch.name, name) for name in ("made.json", "said.txt"))
        self._tried: Moment | None = None
        self.made: Annotations | None = None

    def paint(self, moment: Moment) -> None:
        """Begin on this moment, unless at work or no further than at the last attempt, which may have failed."""
        if self._process is not None or not moment.outdates(self._tried):
            return
        self._tried = moment
        with self._made.open("wb") as output, self._said.open("wb") as errors:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
                start_new_session=True,  # Ctrl-C is this process's business, which then ends that one
            )

    def take(self) -> bool:
        """Whether new ones are there, now in `made`."""
        if self._process is None or self._process.poll() is None:
            return False
        failed, self._process = self._process.returncode != 0, None
        if failed:
            said = self._said.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            why = printable(said[-1])
            sys.stderr.write(f"filter-search: the dashboard's pictures could not be made ({why})\n")
            return False
        self.made = Annotations.from_json(json.loads(self._made.read_text()))
        return True

    def end(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._scratch.cleanup()
