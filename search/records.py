"""Projections of the storage as files: trials.csv, runs.csv, verdict.json. Nothing here decides anything."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from search.alignment import Alignment
from search.findings import Confirmed, Finding, Findings
from search.folder import write_json, write_whole
from search.growth import BestRatio
from search.machine import MACHINE
from search.soundness import FidelityCheck, Sensitivity
from search.study import PURPOSES, Storage, accuracy_of, costs_of
from search.verdict import Comparison, Interval

TRIAL_COLUMNS = (
    "number", "state", "origin", "schedule", "accuracy", "accuracy_se", "params", "macs", "activations",
    "memory_bytes", "wall_seconds", "budget", "value", "runs", "reason", "machine",
)  # fmt: skip
RUN_COLUMNS = (
    "purpose", "number", "schedule", "seed", "split", "accuracy", "loss", "wall_seconds", "epochs", "peak_bytes",
    "reason", "learning_rate_factor", "replicas", "peak_reserved_bytes", "machine",
)  # fmt: skip

_OPENS_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_records(folder: Path, storage: Storage) -> None:
    """Write trials.csv and runs.csv."""
    write_whole(folder / "trials.csv", csv_text(TRIAL_COLUMNS, trial_rows(storage)))
    write_whole(folder / "runs.csv", csv_text(RUN_COLUMNS, run_rows(storage)))


def write_verdict(folder: Path, findings: Findings) -> None:
    """Write verdict.json."""
    write_json(folder / "verdict.json", verdict_values(findings))


def trial_rows(storage: Storage) -> Iterable[dict[str, Any]]:
    """One row per trial that has ended."""
    for trial in storage.trials("search"):
        if trial.state.is_finished():
            yield _trial_row(trial)


def _trial_row(trial: FrozenTrial) -> dict[str, Any]:
    runs = trial.user_attrs.get("runs", [])
    scores = [run["accuracy"] for run in runs if "accuracy" in run]
    row: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state.name,
        "origin": trial.user_attrs["origin"],
        "schedule": trial.user_attrs.get("schedule"),
        "accuracy": accuracy_of(trial),
        "accuracy_se": np.std(scores, ddof=1) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan,
        "wall_seconds": sum(run["wall_seconds"] for run in runs),
        "budget": trial.user_attrs["budget"],
        "value": _value(trial),
        "runs": len(runs),
        "reason": trial.user_attrs.get("reason"),
        "machine": trial.user_attrs.get(MACHINE),
    }
    if "costs" in trial.user_attrs:
        costs = costs_of(trial)
        row |= {
            "params": costs.params,
            "macs": costs.macs,
            "activations": costs.activations,
            "memory_bytes": costs.memory,
        }
    return row


def _value(trial: FrozenTrial) -> float | str | None:
    """What a complete trial is worth; of several objectives their values in turn."""
    if trial.state is not TrialState.COMPLETE:
        return None
    return trial.values[0] if len(trial.values) == 1 else " ".join(f"{value:.6g}" for value in trial.values)


def run_rows(storage: Storage) -> Iterable[dict[str, Any]]:
    """One row per training run: first the search's, then those of confirmation, then the probes."""
    splits = {"search": "validation", "confirm": "test"}
    for purpose in PURPOSES:
        for trial in storage.trials(purpose):
            attrs = trial.user_attrs
            about = {
                "purpose": purpose,
                "number": trial.number,
                "schedule": attrs.get("schedule"),
                "split": splits.get(purpose) or attrs["split"],
                "learning_rate_factor": attrs.get("learning_rate_factor", 1.0),
                "machine": attrs.get(MACHINE),
            }
            for run in attrs.get("runs", []) if trial.state.is_finished() else []:
                yield about | {key: run[key] for key in run if key in RUN_COLUMNS}


def verdict_values(findings: Findings) -> dict[str, Any]:
    """The content of verdict.json; keys are added, never renamed."""
    confirm = findings.plan.config.confirm
    return {
        "schema": 1,
        "study": findings.plan.config.name,
        "score": findings.plan.config.training.score,
        "margin": confirm.margin,
        "confidence": confirm.confidence,
        "fingerprint": findings.plan.config.fingerprint(),
        "verdicts": [_verdict(finding, confirm.margin) for finding in (*findings.findings, *findings.explored)],
        "rule_of_thumb": [_best_ratio(each) for each in findings.rule_of_thumb],
        "weighted": _weighted(findings),
        "best_filters": [
            {"cost": each.budget.cost, "limit": each.budget.limit, "stages": [asdict(stage) for stage in each.stages]}
            for each in findings.best_filters
        ],
        "alignment": [_alignment(each) for each in findings.alignments],
        "sensitivity": [_sensitivity(each) for each in findings.sensitivities],
        "fidelity": [_fidelity(each) for each in findings.fidelity_checks],
    }


def _verdict(finding: Finding, planned_margin: float) -> dict[str, Any]:
    verdict, case, best = finding.verdict, finding.case, finding.best
    return {
        "cost": case.budget.cost,
        "limit": case.budget.limit,
        "rule": str(case.rule),
        "rule_schedule": str(case.schedule),
        "best_schedule": str(best.schedule),
        "rule_accuracy": _accuracy(finding.rule),
        "best_accuracy": _accuracy(best),
        "regret": _interval(verdict.regret),
        "verdict": verdict.outcome,
        "unexplored_probability": finding.unexplored_probability,
        "exploratory": finding.margin_asked is not None,
        "margin": planned_margin if finding.margin_asked is None else finding.margin_asked,
        "budget_used": finding.rule.costs[case.budget.cost] / case.budget.limit,
        "runs_to_decide": verdict.runs_to_decide,
        "challengers": [_challenger(finding, each) | {"accuracy": _accuracy(each)} for each in finding.challengers],
    }


def _challenger(finding: Finding, challenger: Confirmed) -> dict[str, Any]:
    comparison = finding.verdict.comparisons.get(str(challenger.schedule))
    return {
        "schedule": str(challenger.schedule),
        "origin": challenger.origin,
        "difference": _interval(comparison),
        "over_images": _interval(challenger.images),
    }


def _best_ratio(best: BestRatio) -> dict[str, Any]:
    return {
        "cost": best.budget.cost,
        "limit": best.budget.limit,
        "ratio": best.interval.ratio,
        "low": best.interval.low,
        "high": best.interval.high,
        "curve": [
            {
                "ratio": each.ratio,
                "schedule": str(each.schedule),
                "accuracy": each.accuracy,
                "sd": each.sd,
                "over_doubling": _interval(each.gain),
            }
            for each in best.curve
        ],
        "confirmed": [
            {"ratio": each.ratio, "schedule": str(each.schedule)}
            | (_interval(each.accuracy) or {})
            | {"runs": each.runs, "over_doubling": _interval(each.gain)}
            for each in best.confirmed
        ],
    }


def _alignment(found: Alignment) -> dict[str, Any]:
    return {
        "cost": found.budget.cost,
        "limit": found.budget.limit,
        "multiple": found.multiple,
        "free_schedule": str(found.free),
        "aligned_schedule": None if found.aligned is None else str(found.aligned),
        "change": _interval(found.change),
        "budget_used": found.used,
    }


def _weighted(findings: Findings) -> dict[str, Any] | None:
    best = findings.weighted
    if best is None:
        return None
    return {
        "schedule": str(best.schedule),
        "validation_accuracy": best.accuracy,
        "validation_accuracy_sd": best.accuracy_sd,
        "value": best.value,
        "params": best.costs.params,
        "macs": best.costs.macs,
        "activations": best.costs.activations,
        "memory_bytes": best.costs.memory,
    }


def _sensitivity(found: Sensitivity) -> dict[str, Any]:
    return {
        "cost": found.case.budget.cost,
        "limit": found.case.budget.limit,
        "rule": str(found.case.rule),
        "rule_schedule": str(found.case.schedule),
        "rival_schedule": str(found.rival),
        "steadiness": found.steadiness,
        "learning_rates": [
            {"factor": each.factor, "difference": _interval(each.difference), "runs": each.runs} for each in found.at
        ],
    }


def _fidelity(check: FidelityCheck) -> dict[str, Any]:
    values = {"cost": check.budget.cost, "limit": check.budget.limit} | asdict(check)
    return values | {"misleads": check.misleads, "shortfall": _interval(check.shortfall), "budget": str(check.budget)}


def _accuracy(confirmed: Confirmed) -> dict[str, Any]:
    known = _interval(confirmed.accuracy) or {"mean": None, "low": None, "high": None}
    return known | {"runs": confirmed.runs, "collapsed_runs": confirmed.collapsed}


def _interval(interval: Interval | Comparison | None) -> dict[str, Any] | None:
    return None if interval is None else {"mean": interval.mean, "low": interval.low, "high": interval.high}


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """CSV with a header: numbers at six significant digits, nothing where a row has no value.

    Texts that a spreadsheet would take for a formula have an apostrophe put before them.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, str) and value.startswith(_OPENS_FORMULA):
        return f"'{value}"
    return "" if value is None else value
