"""The best candidates as files that need nothing of this package.

Owns the content of `best/`. Which schedule is best is decided in `findings`, what the files hold in `artifact`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search import wording
from search.artifact import Artifact, Provenance, about, loading_text, write_artifact, write_source
from search.cost import COST_NAMES, Budget, amount
from search.errors import ConfigError
from search.evaluate import Evaluate, Failed, Fidelity
from search.exported import ONNX, WEIGHTS
from search.findings import Confirmed, Findings, by_budget
from search.folder import make, write_whole
from search.pages import fill
from search.plainyaml import dump
from search.plainyaml import load as load_yaml
from search.plan import StudyPlan
from search.sight import sight_of, train_rule, write_sight
from search.splits import Splits
from search.study import run_seeds
from search.verdict import Interval


def _tell(sentence: str) -> None:
    sys.stderr.write(f"filter-search: {sentence}\n")


def export_best(
    plan: StudyPlan,
    findings: Findings,
    folder: Path,
    evaluate: Evaluate,
    interrupted: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = _tell,
) -> list[Path]:
    """Write each budget's best confirmed schedule to `best/<budget>/`: configuration, weights, model, ONNX and card.

    The weights are those of the first confirmation seed, fixed in advance and never the best on test, trained again
    here since no run of a study keeps weights. A run that fails is told of in the card in place of weights.

    Args:
        plan: The study.
        findings: What it says.
        folder: Its folder.
        evaluate: Trains.
        interrupted: Asked before each budget; True leaves out those still to come.
        tell: Given a sentence on what had to be left out, once for each reason.

    Returns:
        The folders written, in the order of the budgets.

    Raises:
        ConfigError: A table stood in training's place.
        StorageError: A file cannot be written.
    """
    if plan.config.table is not None:
        _ = plan.data  # says why there is nothing to export
    splits, fidelity = Splits(plan.data, plan.config.data), Fidelity.brief(plan.config.training)
    written: list[Path] = []
    missing: set[str] = set()
    for budget, best in by_budget(findings.findings).items():
        if interrupted():
            break
        seed = run_seeds(plan.config.seed, "confirm", best.schedule, 0, 1)[0]
        (run,) = evaluate(best.schedule, [seed], fidelity, "test", keep_weights=True)
        where = folder / "best" / budget.folder
        make(where)
        (where / "README.md").unlink(missing_ok=True)  # a card means that all the rest is whole
        write_sight(plan, findings, folder, budget, run, train_rule(plan, findings, budget, evaluate))
        provenance = Provenance(plan.config, plan.data, splits, best.schedule, seed, fidelity)
        if isinstance(run, Failed):
            write_source(where, provenance)
            for name in (WEIGHTS, ONNX):
                (where / name).unlink(missing_ok=True)
            _describe(where, plan, budget, best, provenance, run)
        else:
            assert run.weights is not None  # asked for
            artifact = write_artifact(where, provenance, run.weights)
            if isinstance(artifact.onnx, str):
                missing.add(artifact.onnx)
            _describe(where, plan, budget, best, provenance, artifact)
        written.append(where)
    for reason in sorted(missing):
        tell(f"no {ONNX}: {reason}")
    return written


def is_exported(findings: Findings, folder: Path) -> bool:
    """Whether `best/` is complete and of these findings; a model card is written last."""
    for budget, best in by_budget(findings.findings).items():
        where = folder / "best" / budget.folder
        if not (where / "README.md").exists():
            return False
        try:
            kept = load_yaml((where / "config.yaml").read_text(), str(where / "config.yaml"))
            same = (kept["schedule"], kept["confirmed"]["runs"]) == (str(best.schedule), best.runs)
        except (ConfigError, OSError, ValueError, KeyError, TypeError):  # none of ours
            same = False
        if not same:
            return False
        if sight_of(folder, budget) is None:
            return False
    return True


def _describe(
    where: Path, plan: StudyPlan, budget: Budget, best: Confirmed, provenance: Provenance, made: Artifact | Failed
) -> None:
    """Write configuration and model card of what was made."""
    told = about(provenance)
    values: dict[str, Any] = {"schema": told["schema"], "schedule": told["schedule"], "budget": str(budget)} | told
    values |= {
        "origin": best.origin,
        "costs": {name: best.costs[name] for name in best.costs.known},
        "confirmed": {
            "split": "test",
            "score": plan.config.training.score,
            "accuracy": None if best.accuracy is None else _limits(best.accuracy),
            "confidence": plan.config.confirm.confidence,
            "runs": best.runs,
            "seeds": run_seeds(plan.config.seed, "confirm", best.schedule, 0, best.runs),
        },
        **({"weights": {"failed": made.reason}} if isinstance(made, Failed) else made.values()),
        "study": plan.config.model_dump(mode="json"),
    }
    head = "# An exported candidate; `filter-search train` on its folder trains it at full fidelity.\n"
    write_whole(where / "config.yaml", head + dump(values))
    card = {
        "plan": plan,
        "config": plan.config,
        "budget": wording.budget_text(budget),
        "best": best,
        "origin": "by the surrogate model" if best.origin == "surrogate" else f"as the rule {best.origin}",
        "made": made,
        "scored": isinstance(made, Artifact),
        "loading": loading_text(where, provenance, made) if isinstance(made, Artifact) else "",
        "provenance": provenance,
        "images": provenance.sizes,
        "folder": where,
        "costs": {cost: amount(cost, best.costs[cost]) for cost in COST_NAMES},
        "words": wording,
        "score": wording.score_text(plan.config.training.score),
    }
    write_whole(where / "README.md", fill("model_card.md", card))


def _limits(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
