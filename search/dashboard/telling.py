"""Trials told for people: attributes in the words of trials.csv, and a note on each.

What the storage keeps for machines (packed answers to test images, raw runs, process ids) is left out.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search import wording
from search.cost import Budget, CostName, Costs, amount
from search.study import Purpose, accuracy_of, costs_of

_NAMES: dict[CostName, str] = {
    "params": "params",
    "macs": "macs",
    "activations": "activations",
    "memory": "memory_bytes",
}
_HEADINGS: dict[CostName, str] = {
    "params": "parameters",
    "macs": "multiply-adds (MACs) per image",
    "activations": "activations",
    "memory": "training memory",
}
_MOST_RUNS = 64  # rows of a note's table; runs.csv holds them all


def told(trial: FrozenTrial, budgets: Sequence[Budget]) -> FrozenTrial:
    """A copy of a trial with attributes for people, and constraints in the form the dashboard reads.

    To the dashboard a trial is feasible where its one constraint is at most 0: how far it exceeds the budget it comes
    nearest to, since a trial's runs count for every budget it fits.
    """
    shown = copy.copy(trial)
    shown.user_attrs = _attributes(trial, budgets)
    excess = _excess(trial, budgets)
    shown.system_attrs = {} if excess is None else {"constraints": [excess]}
    return shown


def crowned(shown: FrozenTrial, budgets: Iterable[Budget]) -> FrozenTrial:
    """A copy of a told trial, marked as the best within these budgets."""
    marked = copy.copy(shown)
    marked.user_attrs = shown.user_attrs | {"best_within": ", ".join(each.in_words for each in budgets)}
    return marked


def best_within(trials: Iterable[FrozenTrial], budgets: Sequence[Budget]) -> dict[int, list[Budget]]:
    """By trial number, the budgets a complete trial has the highest validation accuracy within."""
    complete = [
        (accuracy_of(each), each.number, costs_of(each))
        for each in trials
        if each.state is TrialState.COMPLETE and "costs" in each.user_attrs
    ]
    found: dict[int, list[Budget]] = {}
    for budget in budgets:
        within = [(accuracy, -number) for accuracy, number, costs in complete if _met(costs, [budget])]
        if within:
            found.setdefault(-max(within)[1], []).append(budget)
    return found


def _attributes(trial: FrozenTrial, budgets: Sequence[Budget]) -> dict[str, Any]:
    kept = trial.user_attrs
    names = ("schedule", "origin", "budget", "split", "epochs", "share", "learning_rate_factor", "reason")
    attrs: dict[str, Any] = {name: kept[name] for name in names if kept.get(name) is not None}
    scores = _scores(trial)
    if scores:
        attrs["accuracy"] = accuracy_of(trial)
    if len(scores) > 1:
        attrs["accuracy_se"] = _standard_error(scores)
    if "runs" in kept:
        attrs["runs"] = len(kept["runs"])
        attrs["wall_seconds"] = round(sum(run.get("wall_seconds", 0.0) for run in kept["runs"]), 3)
    if "costs" in kept:
        costs = costs_of(trial)
        attrs |= {_NAMES[cost]: costs[cost] for cost in costs.known}
        attrs["within"] = ", ".join(each.in_words for each in _met(costs, budgets)) or "no budget"
    return attrs


def note(trial: FrozenTrial, purpose: Purpose, budgets: Sequence[Budget]) -> str:
    """What a trial was, what it costs and what its runs gave, in Markdown."""
    kept = trial.user_attrs
    parts = [_opening(trial, purpose), _outcome(trial, purpose)]
    if "costs" in kept:
        parts.append(_cost_table(costs_of(trial), budgets))
    if kept.get("runs"):
        parts.append(_run_table(kept["runs"]))
    if trial.state is TrialState.FAIL and (detail := kept.get("detail")):
        parts.append(f"```\n{detail.strip().replace('```', '')}\n```")
    return "\n\n".join(filter(None, parts))


def _opening(trial: FrozenTrial, purpose: Purpose) -> str:
    kept = trial.user_attrs
    if "schedule" not in kept:
        return f"A trial for {_origin(kept['origin'])}, not begun yet." if "origin" in kept else "Not begun yet."
    named = f"## {kept['schedule']}"
    match purpose:
        case "search":
            return f"{named}\n\n{wording.capital(_origin(kept['origin']))}, aimed at `{_in_words(kept['budget'])}`."
        case "confirm":
            last = kept["first"] + kept["count"]
            return f"{named}\n\nConfirmation runs {kept['first'] + 1} to {last} of this schedule, with fresh seeds."
        case "probe":
            trained = f"{kept['epochs']} epochs at {kept.get('learning_rate_factor', 1.0):g} times the learning rate"
            return f"{named}\n\nA probe of how far the verdicts can be trusted: {trained}."


@cache
def _in_words(budget: str) -> str:
    return Budget.parse(budget).in_words


def _origin(origin: str) -> str:
    said = wording.origin_text(origin)
    return said if said != origin else f"rule {origin}"


def _outcome(trial: FrozenTrial, purpose: Purpose) -> str:
    kept, scores = trial.user_attrs, _scores(trial)
    if trial.state is TrialState.FAIL:
        return f"**Failed**: {kept.get('reason', 'for a reason that was not recorded')}."
    if not scores:
        return {TrialState.WAITING: "Waiting for a worker.", TrialState.RUNNING: "Being trained."}.get(trial.state, "")
    split = kept.get("split") or {"search": "validation"}.get(purpose, "test")
    spread = f" ± {100 * _standard_error(scores):.2f} (standard error)" if len(scores) > 1 else ""
    runs = wording.counted(len(scores), "run")
    return f"**{wording.percent(accuracy_of(trial))}**{spread} on the {split} split, mean of {runs}."


def _cost_table(costs: Costs, budgets: Sequence[Budget]) -> str:
    rows = ["| costs | | share of the budget |", "| --- | ---: | --- |"]
    for cost in costs.known:
        used = [f"{100 * costs[cost] / each.limit:.0f} % of {amount(cost, each.limit)}" for each in _on(budgets, cost)]
        rows.append(f"| {_HEADINGS[cost]} | {amount(cost, costs[cost])} | {', '.join(used)} |")
    return "\n".join(rows)


def _run_table(runs: Sequence[dict[str, Any]]) -> str:
    rows = ["| run | seed | accuracy | seconds |", "| ---: | ---: | ---: | ---: |"]
    for place, run in enumerate(runs[:_MOST_RUNS], start=1):
        gave = wording.percent(run["accuracy"]) if "accuracy" in run else run["reason"]
        rows.append(f"| {place} | {run['seed']} | {gave} | {run.get('wall_seconds', 0.0):.2f} |")
    return "\n".join(rows)


def _scores(trial: FrozenTrial) -> list[float]:
    return [run["accuracy"] for run in trial.user_attrs.get("runs", ()) if "accuracy" in run]


def _standard_error(scores: Sequence[float]) -> float:
    mean, count = math.fsum(scores) / len(scores), len(scores)  # `statistics.stdev` takes ten times as long
    return math.sqrt(math.fsum((each - mean) ** 2 for each in scores) / (count - 1) / count)


def _on(budgets: Sequence[Budget], cost: CostName) -> list[Budget]:
    return [each for each in budgets if each.cost == cost]


def _met(costs: Costs, budgets: Sequence[Budget]) -> list[Budget]:
    return [each for each in budgets if each.cost in costs.known and each.admits(costs)]


def _excess(trial: FrozenTrial, budgets: Sequence[Budget]) -> float | None:
    if "costs" not in trial.user_attrs:
        return None
    costs = costs_of(trial)
    return min((costs[each.cost] / each.limit - 1 for each in budgets if each.cost in costs.known), default=None)
