"""The report: one self-contained HTML page of what was asked, what was found, how sure that is and how to repeat it.

A projection of `findings`, the storage and environment.json; decides and trains nothing. What the page looks like is
in `templates/report.html.jinja`, what its sentences say in `wording`.
"""

import base64
import gzip
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs

from search import drawing, probewording, sight, wording
from search.cost import CostName, Costs, amount
from search.datawording import classes_text, images_text, splits_text
from search.figures import TrialPoint
from search.findings import Confirmed, Finding, Findings, by_budget
from search.folder import make, write_whole
from search.growth import BestRatio
from search.laywording import how_sure, plain_answer, use_sentence
from search.machinewording import changes
from search.memorytable import memory_table
from search.pages import fill
from search.pictures import Picture, pictures
from search.progress import progress
from search.rules import Fit
from search.schedule import FilterSchedule
from search.settingwording import network_text, table_text
from search.soundness import FidelityCheck
from search.study import Storage
from search.verdict import Outcome
from search.wellformed import environment_of


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes:
        name: Of its files in `figures/`.
        title: What it shows, in a few words.
        uri: The SVG as a data URI: inlined as elements, figures would share and overwrite each other's ids.
        alt: What it says, for who cannot see it.
        reading: How to read it, in one line.
        plot: The same for plotly, as JSON.
    """

    name: str
    title: str
    uri: str
    alt: str
    reading: str
    plot: Markup


@dataclass(frozen=True)
class Sight:
    """What the filters of one budget's networks see, on the page; no picture where none could be looked into."""

    budget: str
    uri: str | None
    alt: str
    reading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """What to use under one budget, and the folder beside the page that has it, where one does."""

    sentence: str
    folder: str | None


@dataclass(frozen=True)
class Card:
    """A verdict as the page shows it."""

    outcome: Outcome
    sign: str
    title: str
    sentence: str
    facts: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class RuleRow:
    """A rule under one budget, as the page's table shows it: accuracies in percent."""

    rule: str
    judged: bool
    schedule: str
    budget_used: str
    validation: str
    validation_runs: int
    test: str
    test_runs: int


@dataclass(frozen=True)
class BestRow:
    """The best confirmed schedule under one budget, as the page's table shows it."""

    budget: str
    schedule: str
    origin: str
    test: str
    test_runs: int
    costs: tuple[str, ...]


@dataclass(frozen=True)
class RatioRow:
    """The growth ratio that serves best under one budget, as the page's table shows it."""

    budget: str
    ratio: str
    limits: str
    doubling: str
    enough: str


@dataclass(frozen=True)
class FidelityRow:
    """How brief training ranked beside full training under one budget, as the page's table shows it."""

    budget: str
    misleads: bool
    schedules: int
    between_fidelities: str
    between_brief: str
    between_full: str
    shortfall: str
    reading: str


def write_report(folder: Path, findings: Findings, storage: Storage) -> Path:
    """Write report.html and its figures as SVG and PNG; return the page's path.

    Raises:
        StorageError: A file cannot be written.
    """
    trials = storage.trials("search", TrialState.COMPLETE)
    make(folder / "figures")
    shown = [_write_picture(folder, each) for each in pictures(findings, list(map(TrialPoint.of, trials)))]
    values = {
        "findings": findings,
        "plan": findings.plan,
        "config": findings.plan.config,
        "question": findings.plan.config.question,
        "answer": plain_answer(findings),
        "uses": [_use(folder, findings, finding) for finding in findings.findings],
        "schedules": len({trial.user_attrs["schedule"] for trial in trials}),
        "sure": how_sure(findings),
        "cards": [_card(findings, finding) for finding in findings.findings],
        "forecast_note": wording.forecast_note(findings.findings),
        "pictures": {each.name: each for each in shown},
        "plotly": _plotly(),
        "best": _best_rows(findings),
        "rules": _rule_tables(findings, trials),
        "rules_of_thumb": [_ratio_row(findings, each) for each in findings.rule_of_thumb],
        "weighted": _weighted(findings),
        "warnings": probewording.warnings(findings),
        "learning_rates": probewording.sensitivity_sentences(findings, findings.sensitivities),
        "fidelity": [_fidelity_row(check) for check in findings.fidelity_checks],
        "fidelity_warnings": list(filter(None, map(probewording.fidelity_warning, findings.fidelity_checks))),
        "memory": memory_table(findings.plan.cost_model, storage),
        "sights": list(_sights(folder, findings)),
        "caution": sight.CAUTION,
        "data_text": None if findings.plan.config.table else _data_text(findings),
        "progress": progress(storage),
        "environment": environment_of(folder),
        "changes": changes(storage),
        "network": network_text(findings.plan.config.network, findings.plan.space.stages),
        "table": table_text(findings.plan.config.table) if findings.plan.config.table else None,
        "words": wording,
        "score": _score(findings),
        "cost_names": _known_costs(findings),
    }
    write_whole(folder / "report.html", fill("report.html", values))
    return folder / "report.html"


def _write_picture(folder: Path, picture: Picture) -> Shown:
    figure = picture.draw()
    svg = drawing.to_svg(figure)
    write_whole(folder / "figures" / f"{picture.name}.svg", svg)
    write_whole(folder / "figures" / f"{picture.name}.png", drawing.to_png(figure))
    uri = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return Shown(picture.name, picture.title, uri, picture.alt, picture.reading, _in_page(picture.plot().to_json()))


def _sights(folder: Path, findings: Findings) -> Iterator[Sight]:
    """What the last export saw, where it is of the schedules that are best now."""
    for budget, best in by_budget(findings.findings).items():
        seen = sight.sight_of(folder, budget)
        if seen is None or seen.networks[0].schedule != best.schedule:
            continue
        path, uri = folder / "figures" / f"{seen.figure}.png", None
        if seen.figure and path.is_file():
            uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        said = sight.alt_text(seen), sight.reading(seen), tuple(sight.sentences(seen))
        yield Sight(wording.short_budget(budget), uri, *said)


@cache
def _plotly() -> str:
    """Plotly's script, compressed: a third of what it weighs, and the page's reader unpacks it in a blink."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _in_page(json_text: str) -> Markup:
    """JSON as a page's script may hold it: no text in it can end the script."""
    return Markup(json_text.replace("<", "\\u003c"))


def _score(findings: Findings) -> str:
    return wording.score_text(findings.plan.config.training.score)


def _known_costs(findings: Findings) -> tuple[CostName, ...]:
    return findings.plan.objective.reference.known


def _use(folder: Path, findings: Findings, finding: Finding) -> Use:
    best = f"best/{finding.case.budget.folder}"
    kept = by_budget(findings.findings).get(finding.case.budget) == finding.best and (folder / best).is_dir()
    return Use(use_sentence(finding, findings.plan.config.confirm), best if kept else None)


def _card(findings: Findings, finding: Finding) -> Card:
    confirm, case, verdict = findings.plan.config.confirm, finding.case, finding.verdict
    score = findings.plan.config.training.score
    used = finding.rule.costs[case.budget.cost] / case.budget.limit
    best = "itself" if finding.best is finding.rule else _described(finding.best)
    facts = [
        (
            str(case.rule),
            f"{case.schedule}: {wording.accuracy_text(finding.rule)}; uses {wording.share(used)} of the budget",
        ),
        ("best confirmed", best),
    ]
    if verdict.runs:
        mean = wording.points(verdict.regret.mean)
        limits = wording.range_text(verdict.regret)
        facts.append(("regret", mean if verdict.exact else f"{limits}, estimate {mean}"))
    facts.append(("margin", wording.points(confirm.margin)))
    remarks = (
        wording.price_of_decision(finding),
        wording.collapse_sentence(finding),
        wording.image_sentence(finding, confirm, score),
        wording.unexplored_sentence(finding, confirm),
    )
    return Card(
        outcome=verdict.outcome,
        sign=drawing.SIGNS[verdict.outcome],
        title=f"{case.rule} within {wording.budget_text(case.budget)}",
        sentence=wording.headline(finding, confirm, score),
        facts=tuple(facts),
        remarks=tuple(filter(None, remarks)),
    )


def _described(confirmed: Confirmed) -> str:
    origin = wording.origin_text(confirmed.origin)
    return f"{confirmed.schedule}, {origin}: {wording.accuracy_text(confirmed)}"


def _best_rows(findings: Findings) -> list[BestRow]:
    return [
        BestRow(
            wording.short_budget(budget),
            str(best.schedule),
            wording.origin_text(best.origin),
            _test_text(best),
            best.runs,
            _costs_text(best.costs),
        )
        for budget, best in by_budget(findings.findings).items()
    ]


def _costs_text(costs: Costs) -> tuple[str, ...]:
    return tuple(amount(cost, costs[cost]) for cost in costs.known)


def _rule_tables(findings: Findings, trials: Sequence[FrozenTrial]) -> list[tuple[str, list[RuleRow]]]:
    """For every budget its rules, best validation accuracy first."""
    runs: dict[FilterSchedule, dict[int, float]] = defaultdict(dict)  # equal seeds are one run
    for trial in trials:
        schedule = FilterSchedule.parse(trial.user_attrs["schedule"])
        runs[schedule] |= {run["seed"]: run["accuracy"] for run in trial.user_attrs["runs"]}
    scores = {schedule: list(known.values()) for schedule, known in runs.items()}
    confirmed = {
        (finding.case.budget, each.schedule): each
        for finding in findings.findings
        for each in (finding.rule, *finding.challengers)
    }
    plan = findings.plan
    tables: list[tuple[str, list[RuleRow]]] = []
    for budget in plan.config.budgets:
        fits = [fit for fit in plan.judged + plan.compared if fit.budget == budget]
        fits.sort(key=lambda fit: -float(np.mean(scores.get(fit.schedule, [-1.0]))))
        rows = [
            _rule_row(fit, fit in plan.judged, scores.get(fit.schedule, []), confirmed.get((budget, fit.schedule)))
            for fit in fits
        ]
        tables.append((wording.budget_text(budget), rows))
    return tables


def _rule_row(fit: Fit, judged: bool, scores: Sequence[float], confirmed: Confirmed | None) -> RuleRow:
    return RuleRow(
        rule=str(fit.rule),
        judged=judged,
        schedule=str(fit.schedule),
        budget_used=wording.share(fit.budget_used),
        validation=_validation_text(scores),
        validation_runs=len(scores),
        test=_test_text(confirmed) if confirmed else "",
        test_runs=confirmed.runs if confirmed else 0,
    )


def _validation_text(scores: Sequence[float]) -> str:
    """Mean and its standard error, in percent."""
    if not scores:
        return ""
    mean = f"{100 * float(np.mean(scores)):.2f}"
    return f"{mean} ± {100 * float(np.std(scores, ddof=1)) / len(scores) ** 0.5:.2f}" if len(scores) > 1 else mean


def _test_text(confirmed: Confirmed) -> str:
    """Mean and its interval, in percent."""
    if confirmed.accuracy is None:
        return ""
    mean, low, high = (100 * value for value in astuple(confirmed.accuracy))
    if confirmed.runs == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _weighted(findings: Findings) -> str | None:
    config, best = findings.plan.config, findings.weighted
    if best is None:
        return None
    weights = config.search.params_weight, config.search.memory_weight
    return wording.weighted_sentence(best, *weights, config.training.score)


def _ratio_row(findings: Findings, best: BestRatio) -> RatioRow:
    interval, enough = best.interval, best.within(findings.plan.config.confirm.margin)
    return RatioRow(
        wording.short_budget(best.budget),
        wording.ratio(interval.ratio),
        wording.ratio_range(interval.low, interval.high),
        "inside" if interval.low <= 2 <= interval.high else "outside",
        wording.ratio_range(*enough) if enough else "",
    )


def _fidelity_row(check: FidelityCheck) -> FidelityRow:
    limits = f"{check.shortfall.low:+.2f} to {check.shortfall.high:+.2f}"
    return FidelityRow(
        wording.short_budget(check.budget),
        check.misleads,
        check.schedules,
        f"{check.between_fidelities:.2f}",
        f"{check.between_brief:.2f}",
        f"{check.between_full:.2f}",
        f"{check.shortfall.mean:+.2f} ({limits})".replace("-", "\N{MINUS SIGN}"),
        probewording.fidelity_reading(check),
    )


def _data_text(findings: Findings) -> str:
    data, config = findings.plan.data, findings.plan.config
    splits = splits_text(data, config.data, config.training.share)
    said = [images_text(data), f"Classes: {classes_text(data)}", splits]
    return ". ".join([*said, *data.notes])
