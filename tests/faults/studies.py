"""Short studies to break: runs that take a moment each, of a planted truth or of real networks that are tiny."""

import os
from dataclasses import dataclass
from pathlib import Path

from postgres import Postgres

from search import storageurl

NAME = "broken"
LEASE_SECONDS = 3
_TABLE = """\
name: {name}
table:
  surface: {{best_ratio: 1.0}}
  images: {{}}
  noise_sd: 0.004
  noise_spread: 1.5
  seconds_per_run: {seconds}
filters: {{stages: [{{low: 2, high: 64, scale: log}}, {{low: 2, high: 64, scale: log}}]}}
budgets: [params <= 1500, activations <= 500]
search: {{trials: {trials}, seeds_per_trial: 2}}
confirm: {{looks: [4, 8], challengers: 2}}
compute: {{lease_seconds: {lease}}}
"""
_TRAINED = """\
name: {name}
filters: {{stages: [{{low: 2, high: 8}}, {{low: 2, high: 8}}]}}
budgets: [params <= 300]
search: {{trials: {trials}, seeds_per_trial: 2}}
training: {{epochs: {epochs}}}
soundness: {{learning_rate_runs: 0}}
confirm: {{looks: [2, 4], challengers: 2}}
compute: {{lease_seconds: {lease}, max_job_minutes: {minutes}}}
"""


@dataclass(frozen=True)
class Ground:
    """Where one study is to be made.

    Attributes:
        folder: The study folder.
        environment: Of its processes; names the server, where there is one.
        server: That server.
        imports: A folder that a user's networks are imported from.
    """

    folder: Path
    environment: dict[str, str]
    server: Postgres | None = None
    imports: Path | None = None

    @property
    def config(self) -> Path:
        """The configuration that is launched."""
        return self.folder.with_suffix(".yaml")

    @property
    def kind(self) -> str:
        """What keeps the study, as people call it."""
        return "PostgreSQL" if self.server else "SQLite"


def ground(folder: Path, server: Postgres | None, imports: Path | None = None) -> Ground:
    """Somewhere for a study: a file in its folder, or a database of its own on a server."""
    names = (storageurl.VARIABLE, storageurl.FILE_VARIABLE)
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment["OMP_NUM_THREADS"] = "1"
    if server:
        url = server.url(folder.name.replace("-", "_"))
        environment[storageurl.VARIABLE] = url.render_as_string(hide_password=False)
    return Ground(folder, environment, server, imports)


def write_table(at: Ground, trials: int, seconds: float) -> None:
    """A study of a planted truth whose runs take so many seconds."""
    at.config.write_text(_TABLE.format(name=NAME, trials=trials, seconds=seconds, lease=LEASE_SECONDS))


def write_trained(at: Ground, trials: int, epochs: int = 1, factory: str | None = None, minutes: float = 5.0) -> None:
    """A study that trains tiny networks on digits; those of a user's factory, if one is named."""
    text = _TRAINED.format(name=NAME, trials=trials, epochs=epochs, lease=LEASE_SECONDS, minutes=minutes)
    at.config.write_text(text + (f"network: {{family: factory, factory: '{factory}'}}\n" if factory else ""))
