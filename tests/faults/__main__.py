"""Two hundred faults, in studies kept in SQLite and in PostgreSQL, and what came of them: `make faults`.

Needs half an hour, two cores, 16 GiB of memory and PostgreSQL's programs; a full disk needs the right to mount one.
Both storages are tried side by side: most of the time is waiting. Exits with 1 where an invariant does not hold.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from benchmarks.ratios import heading, markdown
from faults import hostile, injections, places
from faults.campaign import SERVER_WEIGHTS, WEIGHTS, Outcome, drawn, endure
from faults.studies import ground, write_table, write_trained
from postgres import Postgres, binaries

_STARTS, _TRIALS, _SECONDS_PER_RUN = 12, 160, 0.7
_FLEETS = (("run", "worker"), ("run", "run"), ("run", "worker", "worker"))
_DISK_MEBIBYTES = 24


def outcomes(folder: Path, server: Postgres | None, seed: int, count: int) -> Iterator[Outcome]:
    """Studies of one storage, broken one after the other until so many faults have been injected."""
    folder = folder / ("server" if server else "file")
    folder.mkdir()
    rng = np.random.default_rng([seed, server is not None])
    known: dict[str, str] = {}
    own = [_first_starts_and_damages, _hostile, _signals_in_fit, _full_disk]
    injected = 0
    for special in reversed(own) if server else own:  # a dozen processes take much memory: not of both at once
        for outcome in special(folder, server, rng):
            injected += outcome.injected.total()
            yield outcome
    weights, number = SERVER_WEIGHTS if server else WEIGHTS, 0
    while injected < count:
        at = ground(folder / f"random-{number}", server)
        write_table(at, _TRIALS, _SECONDS_PER_RUN)
        faults = drawn(weights, min(34, count - injected), rng)
        outcome = endure("random faults", at, _TRIALS, _FLEETS[number % len(_FLEETS)], faults, rng, known)
        injected += outcome.injected.total()
        number += 1
        yield outcome


def _first_starts_and_damages(folder: Path, server: Postgres | None, rng: np.random.Generator) -> Iterator[Outcome]:
    at = ground(folder / "starts", server)
    write_table(at, 24, 0.4)
    what = f"{_STARTS} first starts at once"
    outcome = endure(what, at, 24, ("run",) * _STARTS, [], rng, workers=1)
    outcome.injected[what] = 1
    yield outcome
    for damage in places.DAMAGES:
        yield places.damage(at, damage)


def _hostile(folder: Path, server: Postgres | None, rng: np.random.Generator) -> Iterator[Outcome]:
    yield hostile.run(ground(folder / "hostile", server, folder / "imports"))


def _signals_in_fit(folder: Path, server: Postgres | None, rng: np.random.Generator) -> Iterator[Outcome]:
    at = ground(folder / "trained", server)
    write_trained(at, 16, epochs=8)
    signals = [injections.terminate, injections.interrupt, injections.kill_worker] * 2
    yield endure("signals inside fit", at, 16, ("run", "worker"), signals, rng, workers=1)


def _full_disk(folder: Path, server: Postgres | None, rng: np.random.Generator) -> Iterator[Outcome]:
    with places.small_disk(folder / "disk", _DISK_MEBIBYTES) as mounted:
        if mounted:
            at = ground(folder / "disk" / "full", server)
            write_table(at, 60, 0.4)
            yield endure("a full disk", at, 60, ("run", "worker"), [injections.fill_disk] * 3, rng)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, required=True, help="the file for the log")
    parser.add_argument("--seed", type=int, default=0, help="of faults, times and victims")
    parser.add_argument("--injections", type=int, default=200, help="how many at least, over both storages")
    given = parser.parse_args()
    programs = binaries()
    if programs is None:
        parser.error("no PostgreSQL server on this machine; install Debian's package postgresql")
    log = Log(given.write, given.seed)
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(programs, Path(tempfile.mkdtemp(prefix="filter-search-postgres-")))
        try:
            with ThreadPoolExecutor() as pool:
                each = -(-given.injections // 2)
                both = [
                    pool.submit(log.follow, outcomes(Path(folder), own, given.seed, each)) for own in (None, server)
                ]
            for one in both:
                one.result()
        finally:
            server.end()
    sys.exit(any(outcome.wrong for outcome in log.found))


class Log:
    """What came of all studies so far, written after each.

    Args:
        path: The file.
        seed: Of faults, times and victims.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._seed, self._began = path, seed, time.monotonic()
        self._writing = threading.Lock()
        self.found: list[Outcome] = []

    def follow(self, outcomes: Iterator[Outcome]) -> None:
        """Write outcomes as they come."""
        for outcome in outcomes:
            verdict = "; ".join(outcome.wrong) or "all holds"
            sys.stderr.write(f"{outcome.kind}, {outcome.what}, {outcome.injected.total()} faults: {verdict}\n")
            with self._writing:
                self.found.append(outcome)
                lines = report(self.found, self._seed, time.monotonic() - self._began)
                self._path.write_text("".join(f"{line}\n" for line in lines))


def report(found: list[Outcome], seed: int, seconds: float) -> Iterator[str]:
    """The log, as lines of Markdown."""
    kinds = ("SQLite", "PostgreSQL")
    total = sum(outcome.injected.total() for outcome in found)
    yield from heading("Faults, injected", "make faults")
    yield (
        f"{total} faults in {len(found)} studies, seed {seed}, in {seconds / 60:.0f} minutes. What holds of every "
        "study after its faults: numbers without a gap, one end for each trial, every end that the storage was seen "
        "to hold still there and the same, nothing left running, as many finished trials as were asked for, each "
        "proposal once, confirmation runs without a gap, equal results for equal schedule and seed, and nothing "
        "changed by another launch."
    )
    yield ""
    names = sorted({name for outcome in found for name in outcome.injected})
    rows = []
    for name in names:
        counts = [sum(outcome.injected[name] for outcome in found if outcome.kind == kind) for kind in kinds]
        broken = sum(bool(outcome.wrong) for outcome in found if outcome.injected[name])
        studies = sum(bool(outcome.injected[name]) for outcome in found)
        verdict = f"all holds in all {studies}" if not broken else f"something does not hold in {broken} of {studies}"
        rows.append([name, *(str(count) for count in counts), verdict])
    yield from markdown(("fault", *kinds, "studies"), rows)
    per_study = [
        [outcome.what, outcome.kind, str(outcome.injected.total()), str(outcome.ends), "; ".join(outcome.wrong) or "-"]
        for outcome in found
    ]
    yield from markdown(("study", "storage", "faults", "ends seen", "what does not hold"), per_study)


if __name__ == "__main__":
    main()
