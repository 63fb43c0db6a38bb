"""The main job: search, confirmation and verdict of one study, from its folder's creation to its last file.

What is trained is in the storage, what follows from it in `findings`; here both meet the study folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search import configfile, database, folder, fusing, machine, queues, study
from search.cases import (
    Exploration,
    Standing,
    standings,
    store_exploration,
    stored_cases,
)
from search.confirm import choose_cases, fit_surrogate
from search.coordinate import Launch, stopping
from search.data import ImageData
from search.errors import ConfigError
from search.exact import exact_standings
from search.findings import Findings
from search.launch import LocalWorkers
from search.leases import Leases
from search.memorylimit import memory_limit
from search.plan import StudyPlan
from search.progress import Progress, mark_done, progress
from search.raylaunch import RayWorkers, storage_environment
from search.records import write_records
from search.study import Storage
from search.wellformed import environment_of, load_kept


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes:
        findings: What the study says; None when its time was up before the search had ended.
        standings: Where every case stands.
        progress: What was done and what was given up.
        stopped: Which limit under `compute` ended it early; None where none did.
    """

    findings: Findings | None
    standings: list[Standing]
    progress: Progress
    stopped: str | None


def run_study(
    plan: StudyPlan,
    where: Path,
    *,
    workers: int,
    device: str,
    resume: bool,
    command: Sequence[str],
    show: Callable[[Storage], None],
    launcher: Literal["local", "ray"] = "local",
) -> Ended:
    """Run a study to its verdict and write its folder.

    Args:
        plan: The study worked out.
        where: The study folder.
        workers: Local processes.
        device: What candidates train on here, as `device.device_name` has it; as recorded.
        resume: Continue the study in `where` if there is one.
        command: The command line, as recorded.
        show: Called a few times a second.
        launcher: What starts the workers.

    Raises:
        ConfigError: A study exists and `resume` is off, or it was made by another configuration or other data; or Ray
            is asked for and cannot be used.
        StorageError: The folder or the study in it cannot be used.
        NoTrialError: No trial could be completed.
        InterruptedStudyError: A signal stopped the study; everything finished is kept.
    """
    _check_startable(plan, where, resume)  # before anything is written
    on_ray = RayWorkers(where, plan.config.compute, storage_environment(where)) if launcher == "ray" else None
    folder.make(where)
    with stopping(plan.config.compute) as stop, database.guarded(where), folder.joined(where) as membership:
        _check_startable(plan, where, resume)  # again: another launch may have been here before the lock was ours
        storage = _open(plan, where)
        leases = _begin(plan, storage, where, membership)
        _write_head(plan, storage, where, workers, device, command)
        before = progress(storage)
        if plan.exhaustive:
            mark_done(storage)
        else:
            crew = on_ray or LocalWorkers(where, plan.config, workers, membership.lock)
            with leases, storage.written_fast(), crew:
                try:
                    Launch(plan, storage, crew, stop, show, leases).carry_out()
                finally:
                    write_records(where, storage)
                    folder.note_environment(where, fusing.decided(storage) | machine.noted(storage))
        if stop.signals > 1:
            stop.end()
        from search import outcome  # only now: while workers train, they can use the memory that takes

        with folder.writing(where):
            findings = outcome.write(plan, storage, where)
            if findings and plan.config.table is None:  # which has no weights
                outcome.export(plan, findings, storage, where, stop, anew=progress(storage) != before)
        if findings and plan.exhaustive:
            standing = exact_standings(findings)
        else:
            standing = standings(storage, plan.config.confirm)
        ended = Ended(findings, standing, progress(storage), stop.over)
    stop.end()
    return ended


def explore(
    plan: StudyPlan, terms: StudyPlan, where: Path, *, workers: int, show: Callable[[Storage], None]
) -> list[Standing]:
    """Judge a finished study on other terms, with further runs where they are needed.

    Terms chosen after looking at a verdict make another one `exploratory`. Runs made before count again; the cases of
    budgets judged before keep their challengers, and those of new budgets get theirs from the surrogate.

    Args:
        plan: The study worked out.
        terms: The same with another margin, other looks or other budgets.
        where: Its folder.
        workers: Local processes.
        show: Called a few times a second.

    Raises:
        ConfigError: The study has no verdict yet.
        StorageError: The folder or the study in it cannot be used.
        InterruptedStudyError: A signal stopped it; asking again goes on.
    """
    with stopping(plan.config.compute) as stop, database.guarded(where), folder.locked(where) as lock:
        storage = study.load(where, plan.config.name, patient=True)
        planned = stored_cases(storage)
        if planned is None:
            msg = f"the study in {where} has no verdict yet; first go on with {folder.resume_command(where)}"
            raise ConfigError(msg)
        known = {(case.budget, case.rule): case for case in planned}
        chosen = choose_cases(terms, fit_surrogate(storage, plan.config.seed), memory_limit(*storage.studies))
        cases = tuple(known.get((case.budget, case.rule), case) for case in chosen)
        exploration = Exploration(terms.config.confirm, cases)
        store_exploration(storage, exploration)
        queues.enqueue_given_up(storage)
        leases = Leases(storage, where, plan.config.compute.lease_seconds)
        leases.release_of_here()
        local = LocalWorkers(where, plan.config, workers, lock)
        with leases, storage.written_fast(), local:
            launch = Launch(terms, storage, local, stop, show, leases)
            try:
                launch.confirm_all(cases)
            finally:
                launch.drain()
        from search import outcome  # see `run_study`

        with folder.writing(where):
            outcome.write(plan, storage, where)
        standing = standings(storage, exploration.confirm, cases)
    stop.end()
    return standing


def _check_startable(plan: StudyPlan, where: Path, resume: bool) -> None:
    folder.check_startable(where, resume)
    database.refuse_two_places(where)
    if study.exists(where, plan.config.name):
        folder.refuse_existing(database.named(database.place_of(where)), resume)
        check_same(plan, load_kept(where, plan.config, patient=True), where)


def check_same(plan: StudyPlan, storage: Storage, where: Path) -> None:
    """Refuse a study made by another configuration or on other data: its margin and budgets came first.

    Raises:
        ConfigError: With the differences.
    """
    attrs = storage.search.user_attrs
    configfile.refuse_another(attrs["config"], plan.config, where)
    if attrs["data"] != plan.source.fingerprint:
        msg = (
            f"{plan.source.name} is no longer what the study in {where} was made on: something in it has changed; put "
            "it back as it was, or give another folder with --out"
        )
        raise ConfigError(msg)


def _open(plan: StudyPlan, where: Path) -> Storage:
    """The study's storage, its trials all queued; made where there is none."""
    if study.exists(where, plan.config.name):
        storage = study.load(where, plan.config.name, patient=True)
        database.keep(where)  # so that the folder is known to be this study's
    else:
        storage = study.create(where, plan.config, plan.objective.directions, plan.source.fingerprint)
        check_same(plan, storage, where)  # another launch may have been faster
    queues.enqueue_missing(storage, plan.proposals())
    queues.enqueue_given_up(storage)
    return storage


def _begin(plan: StudyPlan, storage: Storage, where: Path, membership: folder.Membership) -> Leases:
    """Put back what nobody carries out any more, then let others in; this launch's leases."""
    leases = Leases(storage, where, plan.config.compute.lease_seconds)
    if membership.alone:
        leases.release_of_here()
    membership.share()
    return leases


def _write_head(
    plan: StudyPlan, storage: Storage, where: Path, workers: int, device: str, command: Sequence[str]
) -> None:
    """Write what is known of a study before it runs."""
    if not environment_of(where):
        written = folder.environment(command, plan.config.seed, workers, device)
        notes = plan.source.notes if isinstance(plan.source, ImageData) else ()
        folder.write_json(where / "environment.json", written | {"data_notes": list(notes)})
    configfile.write(plan.config, where / "config.yaml")
    study.note_settings(storage, plan.config)


def join_study(plan: StudyPlan, where: Path, *, workers: int, show: Callable[[Storage], None]) -> Ended:
    """Carry out jobs of a study that another launch began, on this machine, until it is done; writes no files.

    Args:
        plan: The study worked out.
        where: Its folder.
        workers: Local processes.
        show: Called a few times a second.

    Raises:
        ConfigError: It was made by another configuration or on other data.
        StorageError: The study in the folder cannot be used.
        NoTrialError: No trial could be completed.
        InterruptedStudyError: A signal stopped it; everything finished is kept.
    """
    with stopping(plan.config.compute) as stop, database.guarded(where), folder.joined(where) as membership:
        database.refuse_two_places(where)
        storage = load_kept(where, plan.config, patient=True)
        check_same(plan, storage, where)
        leases = _begin(plan, storage, where, membership)
        local = LocalWorkers(where, plan.config, workers, membership.lock)
        with leases, storage.written_fast(), local:
            Launch(plan, storage, local, stop, show, leases).carry_out()
        ended = Ended(None, [], progress(storage), stop.over)
    stop.end()
    return ended
