import io
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState
from planted_findings import make_plan, make_storage
from rich.console import Console

from search import livedisplay
from search.cases import Standing
from search.livedisplay import best_table, live, phase_text, standing_tables
from search.progress import Best, progress
from search.schedule import FilterSchedule


@pytest.fixture
def storage(plan, tmp_path):
    return make_storage(plan, tmp_path)


@pytest.fixture
def terminal(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(livedisplay, "err", screen)
    return screen


def _add(study, state, seconds):
    begun = datetime(2026, 1, 1)
    trial = optuna.trial.create_trial(
        state=state,
        value=0.9 if state is TrialState.COMPLETE else None,
        user_attrs={"schedule": "8-8-8", "first": study.trials[-1].number + 1 if study.trials else 0, "count": 1},
    )
    trial.datetime_start, trial.datetime_complete = begun, begun + timedelta(seconds=seconds)
    if not state.is_finished():
        trial.datetime_complete = None
    study.add_trial(trial)


def test_the_pace_so_far_tells_the_time_left_and_a_pause_does_not_count(storage):
    for second in (1, 3, 5, 7, 1000, 1002):
        _add(storage.confirm, TrialState.COMPLETE, second)
    assert progress(storage).seconds_left is None  # nothing runs
    _add(storage.confirm, TrialState.RUNNING, 0)
    for _ in range(4):
        _add(storage.confirm, TrialState.WAITING, 0)
    assert progress(storage).seconds_left == pytest.approx(5 * 2)
    assert phase_text(progress(storage), "confirm").endswith("1 running, about 10 s left")
    assert "left" not in phase_text(progress(storage), "search")


def test_too_few_ends_tell_no_pace(storage):
    for second in (1, 3, 5):
        _add(storage.confirm, TrialState.COMPLETE, second)
    _add(storage.confirm, TrialState.RUNNING, 0)
    assert progress(storage).seconds_left is None


def test_every_state_of_a_trial_is_told(storage):
    counts = replace(progress(storage), phase="search", running=2, failed=3, pruned=4, given_up=1, seconds_left=600.0)
    said = phase_text(counts, "search")
    assert said.endswith("2 running, 3 failed, 4 pruned, 1 given up after crashes, about 10 min left")


def test_a_terminal_shows_bars_and_what_leads(storage, plan, terminal):
    with live(plan.config, quiet=False) as show:
        show(storage)
    shown = terminal.file.getvalue()
    assert "search" in shown
    assert f"{len(storage.trials('search'))} trials" in shown
    assert "best so far" in shown
    assert "1,500 parameters" in shown


def test_colour_is_left_out_where_it_is_not_wanted(storage, plan, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(livedisplay, "err", screen)
    with live(plan.config, quiet=False) as show:
        show(storage)
    assert "\x1b[3" not in screen.file.getvalue()  # no colour; bold and cursor movements stay


def test_elsewhere_a_line_now_and_then(storage, plan, monkeypatch):
    plain = Console(file=io.StringIO(), width=100)
    monkeypatch.setattr(livedisplay, "err", plain)
    with live(plan.config, quiet=False) as show:
        show(storage)
        show(storage)
    lines = plain.file.getvalue().splitlines()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


def test_quiet_is_quiet(storage, plan, terminal):
    with live(plan.config, quiet=True) as show:
        show(storage)
    assert terminal.file.getvalue() == ""


def test_the_table_names_the_score():
    plan = make_plan(training={"score": "balanced_accuracy"})
    table = best_table([Best(plan.config.budgets[0], "8-8-8", 0.91)], plan.config)
    assert [column.header for column in table.columns][2] == "validation balanced accuracy"


@pytest.fixture
def judged(findings):
    """Standings of verdicts of all kinds."""
    return [
        Standing(each.case, each.verdict, 0.96, FilterSchedule.parse(each.verdict.best or "4-9-18"), 0.98)
        for each in findings.findings
    ]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (44, "budget doubling regret verdict"),
        (60, "budget doubling best regret verdict"),
        (80, "budget doubling acc. best acc. regret verdict"),
        (110, "budget doubling acc. best acc. regret verdict"),
    ],
)
def test_verdicts_are_readable_at_any_width(judged, width, headings):
    (table,) = standing_tables(judged)
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(lines[0].split()) == headings
    assert "…" not in console.file.getvalue()
    cells = console.file.getvalue().split()
    for each in judged:
        regret = each.verdict.regret
        assert {str(each.case.schedule), f"{100 * regret.low:.2f}–{100 * regret.high:.2f}"} <= set(cells)  # noqa: RUF001
    if "acc." in headings:
        assert cells.count("96.00") == 3
        assert "not near-optimal" in console.file.getvalue()


def test_once_all_runs_queued_are_made_only_their_number_is_told(storage):
    counts = replace(progress(storage), phase="confirm", confirmed=900, confirmations=944)
    assert phase_text(counts, "confirm") == "900 of 944 runs queued so far"
    assert phase_text(replace(counts, confirmed=944), "confirm") == "944 runs"
