"""What follows from a study, written to its folder: records, verdict, report, the best candidates.

Pure projections of the storage: they can be written again at any time.
"""

from pathlib import Path

import torch

from search import database, leaderboard
from search.annotations import annotate
from search.cases import stored_cases
from search.coordinate import Stop
from search.errors import StorageError
from search.exact import exact_findings
from search.export import export_best, is_exported
from search.findings import Findings, conclude
from search.plan import StudyPlan
from search.records import write_records, write_verdict
from search.report import write_report
from search.study import Storage
from search.worker import make_evaluator


def write(plan: StudyPlan, storage: Storage, where: Path) -> Findings | None:
    """Write what follows from the storage: the records and, once the cases are fixed, verdict and report.

    Returns:
        None while the search goes on.
    """
    write_records(where, storage)
    if stored_cases(storage) is None and not plan.exhaustive:
        return None
    findings = exact_findings(plan) if plan.exhaustive else conclude(plan, storage)
    write_verdict(where, findings)
    leaderboard.write(where, findings, storage)
    write_report(where, findings, storage)
    try:
        with database.guarded(where):
            annotate(storage, findings)
    except StorageError as error:
        if not _is_read_only(error):  # else the report is all there can be
            raise
    return findings


def _is_read_only(error: StorageError) -> bool:
    """Whether it came of a database that this user may read and not write, by SQLite's own code for that."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(getattr(cause, "orig", None), "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            return True
        cause = cause.__cause__
    return False


def export(plan: StudyPlan, findings: Findings, storage: Storage, where: Path, stop: Stop, *, anew: bool) -> None:
    """Write the best candidates as files, and the report again, which shows what was seen on the way.

    Args:
        plan: The study worked out.
        findings: What it says.
        storage: The study's.
        where: Its folder.
        stop: What may stop it early.
        anew: Whether what was exported before is to be replaced.
    """
    if anew or not is_exported(findings, where):
        torch.set_num_threads(1)  # as in a worker: on networks this small a second thread costs time
        export_best(plan, findings, where, make_evaluator(plan), interrupted=lambda: stop.signal is not None)
        write_report(where, findings, storage)
