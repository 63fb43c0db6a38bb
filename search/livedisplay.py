"""Where a study stands, on a terminal: while it runs on standard error, and the tables that `status` shares.

Owns how counts, paces and tables are shown. Nothing here decides or trains, and it loads in a moment.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from search.cases import Standing, standings
from search.config import StudyConfig
from search.narrowing import Column, NarrowingTable
from search.printable import PlainConsole
from search.progress import Best, Progress, best_so_far, progress
from search.study import Purpose, Storage
from search.wording import counted, score_text, short_budget

Show = Callable[[Storage], None]
"""Called several times a second while a study runs."""

PLAIN_SECONDS = 10.0
"""How often a line is printed where there is no terminal to draw on."""
_COUNT_SECONDS, _TABLE_SECONDS = 0.5, 2.0  # how often counts and tables are read anew; both look at every trial
_PLAIN_WIDTH = 110  # of a file or pipe, which has no width of its own
_STYLES = {"near-optimal": "green", "not near-optimal": "bold magenta", "undecided": "yellow"}


def _console(stderr: bool) -> PlainConsole:
    console = PlainConsole(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)


@contextmanager
def live(config: StudyConfig, *, quiet: bool) -> Iterator[Show]:
    """Bars, and what leads under each budget, in a terminal; a line now and then elsewhere; nothing if `quiet`."""
    if quiet:
        yield lambda _: None
    elif err.is_terminal:
        screen = _Screen(config)
        with Live(get_renderable=screen.renderable, console=err, refresh_per_second=4):
            yield screen.update
    else:
        yield _lines()


class _Screen:
    """What a terminal shows while a study runs: a bar for each phase begun, below it what leads or is decided."""

    def __init__(self, config: StudyConfig) -> None:
        columns = (TextColumn("{task.description:8}"), BarColumn(24), TextColumn("{task.fields[said]}"))
        self._config = config
        self._bars = Bars(*columns, TimeElapsedColumn(), console=err)
        self._tasks: dict[Purpose, TaskID] = {}
        self._tables: Sequence[RenderableType] = []
        self._counted = self._tabled = -_TABLE_SECONDS

    def renderable(self) -> Group:
        """Bars and tables as they stand."""
        return Group(self._bars, *self._tables)

    def update(self, storage: Storage) -> None:
        """Look at the study again, if it is time to."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_SECONDS:
            self._counted = now
            self._count(progress(storage))
        if now - self._tabled >= _TABLE_SECONDS:
            self._tabled = now
            judged = standings(storage, self._config.confirm)
            best = best_so_far(storage, self._config.budgets)
            self._tables = standing_tables(judged) if judged else [best_table(best, self._config)] if best else []

    def _count(self, counts: Progress) -> None:
        amounts: dict[Purpose, tuple[int, int]] = {
            "search": (counts.finished, counts.trials),
            "confirm": (counts.confirmed, counts.confirmations),
            "probe": (counts.probed, counts.probes),
        }
        for phase, (done, total) in amounts.items():
            if phase not in self._tasks and (total or phase == counts.phase):
                self._tasks[phase] = self._bars.add_task(phase, said="")
            if phase in self._tasks:
                self._bars.update(
                    self._tasks[phase], completed=done, total=total or None, said=phase_text(counts, phase)
                )
                if phase != counts.phase:
                    self._bars.stop_task(self._tasks[phase])


def _lines() -> Show:
    last = time.monotonic() - PLAIN_SECONDS

    def show(storage: Storage) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            counts = progress(storage)
            err.print(f"{counts.phase}: {phase_text(counts, counts.phase)}")

    return show


def phase_text(counts: Progress, phase: Purpose) -> str:
    """Where one phase stands, in a line: `34/64 trials, 2 running, 1 failed, about 3 min left`."""
    others = [(counts.out_of_memory, "out of memory"), (counts.given_up, "given up after crashes")]
    if phase == counts.phase:
        others = [(counts.running, "running"), *others]
    match phase:
        case "search":
            text = f"{counts.finished}/{counts.trials} trials"
            others[-1:-1] = [(counts.failed, "failed"), (counts.pruned, "pruned")]
        case "confirm":
            text = counted(counts.confirmations, "run")
            if counts.confirmed < counts.confirmations:
                text = f"{counts.confirmed} of {text} queued so far"
        case "probe":
            text = f"{counts.probed} of {counted(counts.probes, 'run')}"
    parts = [text, *(f"{n} {word}" for n, word in others if n)]
    if phase == counts.phase and counts.seconds_left is not None:
        parts.append(f"about {duration(counts.seconds_left)} left")
    return ", ".join(parts)


def best_table(best: Sequence[Best], config: StudyConfig) -> Table:
    """The best trial of each budget so far."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("budget", "best so far", f"validation {score_text(config.training.score)}"):
        table.add_column(heading, justify="right" if heading.startswith("validation") else "left")
    for each in best:
        table.add_row(short_budget(each.budget), each.schedule, f"{100 * each.accuracy:.2f} %")
    return table


def standing_tables(found: Sequence[Standing]) -> list[NarrowingTable]:
    """One table of verdicts for each rule judged; narrow consoles leave out accuracies, then the best, then regret."""
    tables = []
    for rule in dict.fromkeys(each.case.rule for each in found):
        columns = (
            Column("budget", 3, wraps=True),
            Column(str(rule), 3),
            Column("acc.", 0, right=True),
            Column("best", 1),
            Column("acc.", 0, right=True),
            Column("regret", 2, right=True),
            Column("verdict", 3, wraps=True),
        )
        tables.append(NarrowingTable(columns, [_standing_cells(each) for each in found if each.case.rule == rule]))
    return tables


def _standing_cells(standing: Standing) -> tuple[str, ...]:
    regret, outcome = standing.verdict.regret, standing.verdict.outcome
    rule, best = (
        "-" if accuracy is None else f"{100 * accuracy:.2f}"
        for accuracy in (standing.rule_accuracy, standing.best_accuracy)
    )
    limits = f"{100 * regret.low:.2f}–{100 * regret.high:.2f}"  # noqa: RUF001 # a range is written with an en dash
    verdict = f"[{_STYLES[outcome]}]{outcome}[/]"
    return (
        short_budget(standing.case.budget),
        str(standing.case.schedule),
        rule,
        str(standing.best),
        best,
        limits,
        verdict,
    )


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
