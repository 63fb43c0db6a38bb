"""What must hold of a study that has ended, whatever was done to it meanwhile: one checker for all faults."""

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from faults.studies import Ground
from faults.watch import Acknowledged, Trials, Watch, end_of, results

from search.study import is_finished, is_given_up

RECORDS = ("trials.csv", "runs.csv", "verdict.json")
_PATIENCE_SECONDS = 240


def check(at: Ground, watch: Watch, trials: int, put_aside: int = 0) -> list[str]:
    """What does not hold of a study that has ended; launches it once more, which must change nothing.

    Args:
        at: Where it is.
        watch: Who looked at it from its beginning.
        trials: How many it was to have.
        put_aside: How many of its proposals cannot be carried out, so that a launch tries them again.
    """
    found = watch.look()
    wrong = [*violations(found, watch.acknowledged, trials, put_aside)]
    if not put_aside:
        before = state_of(at.folder, found)
        ended = relaunch(at)
        if ended.returncode:
            wrong.append(f"launched once more it exits with {ended.returncode}: {ended.stderr[-500:]}")
        wrong += changes(before, state_of(at.folder, watch.look()))
    return wrong


def violations(found: Trials, acknowledged: Acknowledged, trials: int, put_aside: int = 0) -> Iterator[str]:
    """What does not hold of trials, see `check`."""
    yield from _numbers(found)
    yield from _ends(found, acknowledged)
    yield from _budget(found, trials, put_aside)
    yield from _spans(found)
    for key, result in results(found):
        if acknowledged.results.get(key, result) != result:
            yield f"{key} gave {acknowledged.results[key]}, and elsewhere {result}"


def _numbers(found: Trials) -> Iterator[str]:
    for purpose, trials in found.items():
        numbers = [trial.number for trial in trials]
        if numbers != list(range(len(numbers))):
            yield f"the numbers of {purpose} are {numbers}"
        for trial in trials:
            if not trial.state.is_finished():
                yield f"{purpose} {trial.number} is {trial.state.name}"


def _ends(found: Trials, acknowledged: Acknowledged) -> Iterator[str]:
    now = {(purpose, trial.number): trial for purpose, trials in found.items() for trial in trials}
    for (purpose, number), ends in acknowledged.ends.items():
        if len(ends) > 1:
            yield f"{purpose} {number} had {len(ends)} ends: {' and '.join(ends)}"
        trial = now.get((purpose, number))
        if trial is None:
            yield f"{purpose} {number} had ended, and is gone"
        elif end_of(trial) != ends[0]:
            yield f"{purpose} {number} had ended so: {ends[0]}, and is now {end_of(trial)}"


def _budget(found: Trials, trials: int, put_aside: int) -> Iterator[str]:
    search = found.get("search", ())
    finished = Counter(trial.user_attrs["proposal"] for trial in search if is_finished(trial))
    aside = {trial.user_attrs["proposal"] for trial in search if is_given_up(trial)} - finished.keys()
    if twice := [proposal for proposal, count in finished.items() if count > 1]:
        yield f"carried out more than once: proposals {twice}"
    if finished.keys() | aside != set(range(trials)):
        yield f"proposals {sorted(finished.keys() ^ set(range(trials)))} are not what was asked for"
    if len(aside) != put_aside:
        yield f"put aside were {len(aside)}, not {put_aside}"
    for purpose in ("confirm", "probe"):
        given_up = [trial for trial in found.get(purpose, ()) if is_given_up(trial)]
        done = {trial.user_attrs["first"] for trial in found.get(purpose, ()) if is_finished(trial)}
        if lost := [trial.number for trial in given_up if trial.user_attrs["first"] not in done and not put_aside]:
            yield f"{purpose} {lost} were put aside"


def _spans(found: Trials) -> Iterator[str]:
    """Confirmation runs of a schedule begin at 0 and follow each other, none twice."""
    spans = defaultdict(list)
    for job in found.get("confirm", ()):
        if is_finished(job):
            spans[job.user_attrs["schedule"]].append((job.user_attrs["first"], job.user_attrs["count"]))
    for schedule, own in spans.items():
        expected = 0
        for first, count in sorted(own):
            if first != expected:
                yield f"confirmation of {schedule} has the spans {sorted(own)}"
                break
            expected = first + count
        seeds = [run["seed"] for job in found["confirm"] for run in _runs(job, schedule)]
        if len(seeds) != len(set(seeds)):
            yield f"confirmation of {schedule} has one seed twice"


def _runs(job, schedule: str) -> list[dict]:
    return job.user_attrs.get("runs", []) if job.user_attrs["schedule"] == schedule and is_finished(job) else []


def state_of(folder: Path, found: Trials) -> dict[str, object]:
    """All that a launch of a finished study must leave as it was."""
    kept: dict[str, object] = {purpose: [end_of(trial) for trial in trials] for purpose, trials in found.items()}
    return kept | {name: (folder / name).read_bytes() for name in RECORDS if (folder / name).exists()}


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What a launch changed."""
    names = sorted(before.keys() | after.keys())
    changed = [name for name in names if before.get(name) != after.get(name)]
    missing = [name for name in RECORDS if name not in before]
    return [f"launched once more it changed {name}" for name in changed] + [f"{name} is missing" for name in missing]


def relaunch(at: Ground) -> subprocess.CompletedProcess:
    """Launch a study that has ended once more."""
    command = [sys.executable, "-m", "search", "run", str(at.config), "--out", str(at.folder), "--resume"]
    return subprocess.run(
        command,
        env=at.environment,
        cwd=at.imports,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
