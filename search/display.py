"""What the terminal shows: live progress on standard error, results on standard output."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from search.cases import Standing
from search.config import ConfirmConfig, StudyConfig
from search.cost import Budget, amount
from search.datawording import classes_text, images_text, splits_text
from search.folder import resume_command
from search.livedisplay import PLAIN_SECONDS, best_table, duration, err, out, phase_text, standing_tables
from search.probewording import terminal_lines
from search.progress import Best, Progress
from search.rules import Rule
from search.settingwording import table_text
from search.study import PURPOSES
from search.wording import (
    counted,
    forecast_note,
    listed,
    percent,
    price_of_decision,
    score_text,
    short_budget,
    weighted_sentence,
)

if TYPE_CHECKING:  # what trains takes seconds to load, and `status` does not need it
    from search.check import Forecast
    from search.findings import Findings
    from search.fulltraining import EpochReport, Trained
    from search.plan import StudyPlan

_LABEL_WIDTH = 9
_MOST_HOSTS = 8  # named in one line


@contextmanager
def epochs() -> Iterator[Callable[[EpochReport], None]]:
    """One training's epochs on standard error: a bar in a terminal, a line now and then elsewhere."""
    columns = (TextColumn("epoch {task.completed:.0f}/{task.total}"), BarColumn(20), TextColumn("{task.fields[said]}"))
    with Bars(*columns, console=err, disable=not err.is_terminal) as bars:
        task = bars.add_task("", said="", total=None, visible=False)
        last = time.monotonic()

        def show(report: EpochReport) -> None:
            nonlocal last
            said = f"validation score {percent(report.accuracy)}, loss {report.loss:.3f}"
            if report.epoch < report.epochs:
                said += f", {duration(report.seconds_left)} left"
            bars.update(task, completed=report.epoch, total=report.epochs, said=said, visible=True)
            if not err.is_terminal and time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                err.print(f"epoch {report.epoch}/{report.epochs}: {said}")

        yield show


def show_trained(trained: Trained) -> None:
    """What `train` reached and where it lies."""
    interval = trained.accuracy
    if not trained.anew:
        err.print("trained before; the same configuration gives the same network, so this is what it reached")
        if trained.unlogged:
            err.print(
                "nothing was logged, since nothing was trained now; to log it, move "
                f"{escape(str(trained.folder))} away and train again",
                soft_wrap=True,
            )
    out.print(
        f"{trained.schedule} after {trained.epochs} epochs: test {score_text(trained.score)} "
        f"{percent(interval.mean)} (95 % interval over {trained.images:,} images {percent(interval.low)} to "
        f"{percent(interval.high)})"
    )
    if trained.onnx_missing:
        err.print(f"[yellow]no model.onnx[/]: {escape(trained.onnx_missing)}", soft_wrap=True)
    out.print(f"[bold]model[/]    {escape(str(trained.folder))}", soft_wrap=True)


def show_plan(plan: StudyPlan, forecast: Forecast, workers: int) -> None:
    """What `check` found: data, space, rules at every budget, trials, time, and what cannot be resolved."""
    config, space = plan.config, plan.space
    if config.table is None:
        _print_data(plan)
    else:
        _print_labelled("table", table_text(config.table))
    _print_labelled("space", f"{space.size:,} schedules of {space.stages} stages")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    known = plan.cost_model.costs(space.smallest).known
    for heading in ("", "schedule", *known):
        table.add_column(heading, justify="left" if heading in ("", "schedule") else "right")
    for what, schedule in (("smallest", space.smallest), ("largest", space.largest)):
        costs = plan.cost_model.costs(schedule)
        table.add_row(what, str(schedule), *(amount(name, costs[name]) for name in known))
    out.print(table)
    _print_labelled("budgets", ", ".join(budget.in_words for budget in config.budgets))
    _print_labelled("rules", "the largest member within each budget and the share of it used; * judged")
    out.print(_rule_table(plan))
    if plan.exhaustive:
        _print_labelled("trials", "none: all schedules are compared at their known accuracies")
        return
    anchors = len(plan.anchors)
    sampled = max(0, config.search.trials - anchors)
    _print_labelled(
        "trials",
        f"{config.search.trials}: {min(anchors, config.search.trials)} rules and {sampled} proposed by "
        f"{config.search.sampler}, {config.search.seeds_per_trial} seeds each; then "
        f"{forecast.least_confirmations:,} to {forecast.most_confirmations:,} confirmation runs and "
        f"{forecast.probing_runs:,} probes",
    )
    _print_labelled(
        "time",
        f"{duration(forecast.least_seconds)} to {duration(forecast.most_seconds)} with {workers} "
        f"worker{'s' * (workers > 1)} on this machine, depending on how soon the verdicts are decided",
    )
    for warning in warnings(plan, forecast):
        _print_labelled("warning", warning, err, "yellow")


def _print_data(plan: StudyPlan) -> None:
    data = plan.data
    _print_labelled("data", images_text(data))
    _print_labelled("classes", classes_text(data))
    _print_labelled("splits", splits_text(data, plan.config.data, plan.config.training.share))
    for note in data.notes:
        _print_labelled("note", note, style="yellow")


def _print_labelled(label: str, text: str, console: Console = out, style: str = "bold") -> None:
    """A line with its label in front; what runs on is set below the text."""
    grid = Table.grid()
    grid.add_column(width=_LABEL_WIDTH, style=style)
    grid.add_column()
    grid.add_row(label, escape(text))
    console.print(grid)


def warnings(plan: StudyPlan, forecast: Forecast) -> Iterator[str]:
    """What will run but disappoint."""
    margin = plan.config.confirm.margin
    if forecast.resolvable_margin is not None and forecast.resolvable_margin > margin:
        yield (
            f"the test split is too small for a margin of {100 * margin:.2g} points to hold on other images: it "
            f"resolves about {100 * forecast.resolvable_margin:.2g} points; verdicts at this margin speak of this "
            "test split only"
        )
    if len(plan.anchors) >= plan.config.search.trials:
        yield (
            f"{plan.config.search.trials} trials are all spent on the {len(plan.anchors)} rules; set search.trials "
            "higher for a search"
        )
    known = {(fitted.rule, fitted.budget) for fitted in plan.compared}
    for rule in plan.config.rules.compared:
        absent = [budget.in_words for budget in plan.config.budgets if (rule, budget) not in known]
        if absent:
            where = ", ".join(absent)
            yield f"rule {rule} is left out at {where}: no member fits both the budget and the stages' ranges"


def _rule_table(plan: StudyPlan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("rule", no_wrap=True)
    fits = {(fitted.rule, fitted.budget): fitted for fitted in plan.judged + plan.compared}
    for budget in plan.config.budgets:
        table.add_column(short_budget(budget), justify="right")

    def cell(rule: Rule, budget: Budget) -> str:
        fitted = fits.get((rule, budget))
        return f"{fitted.schedule} {fitted.budget_used:4.0%}" if fitted else "-"

    for rule in plan.config.rules.judged + plan.config.rules.compared:
        name = f"{rule}*" if rule in plan.config.rules.judged else str(rule)
        table.add_row(name, *(cell(rule, budget) for budget in plan.config.budgets))
    return table


def show_standings(standings: Sequence[Standing], config: StudyConfig, *, exploratory: bool = False) -> None:
    """One table of verdicts for each rule judged; says so where `exploratory`, their terms chosen after looking."""
    if exploratory:
        out.print("[bold]exploratory[/]: on terms chosen after looking; the planned verdicts are not changed")
    for table in standing_tables(standings):
        out.print(table)
    known, confirm = all(each.verdict.exact for each in standings), config.confirm
    interval = "" if known else f" with its {confirm.confidence:.0%} interval"
    out.print(
        f"acc.: {'known' if known else 'test'} {score_text(config.training.score)} in %; regret in points{interval}; "
        f"margin {100 * confirm.margin:.2g} points"
    )


def show_outcome(findings: Findings, standings: Sequence[Standing]) -> None:
    """The verdicts, what would decide those still open, what speaks against trust, what the weights prefer."""
    config = findings.plan.config
    show_standings(standings, config)
    for finding in findings.findings:
        if price := price_of_decision(finding):
            out.print(f"{short_budget(finding.case.budget)}: {price}")
    if note := forecast_note(findings.findings):
        out.print(note)
    for doubt in terminal_lines(findings):
        out.print(f"[yellow]{escape(doubt)}[/]")
    if findings.weighted:
        weights = config.search.params_weight, config.search.memory_weight
        out.print(weighted_sentence(findings.weighted, *weights, config.training.score))


def show_stopped(limit: str, where: Path) -> None:
    """That a launch ended at a limit, and how to go on."""
    more = "; with more of it, go on with" if limit == "max_gpu_hours" else ". Go on with"
    err.print(f"[yellow]stopped[/]  compute.{limit} is over; everything finished is kept{more}", soft_wrap=True)
    err.print(f"         {escape(resume_command(where))}", soft_wrap=True)


def show_missing(progress: Progress) -> None:
    """Which jobs ended without a result, and what that means; nothing where all have one."""
    for jobs, said in (
        (
            progress.given_up,
            f"given up after crashes ({progress.first_crash}); what needs them is undecided, --resume tries again",
        ),
        (
            progress.out_of_memory,
            "did not fit in memory and are not tried again; what needs them is undecided: ask on a larger device, or "
            "with a smaller training.batch_size or budget",
        ),
    ):
        if jobs:
            err.print(f"[yellow]missing[/]  {counted(jobs, 'job')} {escape(said)}", soft_wrap=True)


def show_next(where: Path, *, trained: bool) -> None:
    """Where the results lie and what to do next."""
    out.print(f"[bold]report[/]   {escape(str(where / 'report.html'))}", soft_wrap=True)
    if not trained:
        out.print("[bold]best[/]     no weights to export: a table stood in training's place")
    elif (where / "best").is_dir():
        out.print(f"[bold]best[/]     {escape(str(where / 'best'))}", soft_wrap=True)
        out.print(f"[bold]next[/]     filter-search train {escape(str(where / 'best'))}/BUDGET", soft_wrap=True)


def _supervisors(hosts: Sequence[str]) -> str:
    """How many there are, and on which hosts."""
    each = [host if count == 1 else f"{host} ({count})" for host, count in Counter(hosts).items()]
    named = each if len(each) <= _MOST_HOSTS else [*each[:_MOST_HOSTS], f"{len(each) - _MOST_HOSTS:,} more"]
    return f"{counted(len(hosts), 'supervisor')}: {listed(named)}"


def show_status(
    progress: Progress,
    best: Sequence[Best],
    standings: Sequence[Standing],
    config: StudyConfig,
    explored: Sequence[tuple[ConfirmConfig, Sequence[Standing]]] = (),
) -> None:
    """Progress, the best so far per budget, and the verdicts once there are cases; last those `explored`, by terms."""
    queued = progress.trials, progress.confirmations, progress.probes
    for phase, jobs in zip(PURPOSES, queued, strict=True):
        if jobs:
            out.print(f"[bold]{phase:8}[/] {phase_text(progress, phase)}")
    if progress.running:
        held = f"{counted(progress.running, 'job')} held by {_supervisors(progress.held_on)}"
        out.print(f"[bold]at work[/]  {escape(held)}", soft_wrap=True)
    if standings:
        show_standings(standings, config)
    else:
        out.print(best_table(best, config))
    for confirm, found in explored:
        out.print()
        show_standings(found, config.model_copy(update={"confirm": confirm}), exploratory=True)
