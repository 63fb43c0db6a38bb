import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from search.cost import Costs
from search.leaderboard import COLUMNS, Entry, leaderboard, note, tables, write
from search.schedule import FilterSchedule


@pytest.fixture(scope="module")
def entries(findings, storage_of_plan):
    return leaderboard(findings, storage_of_plan)


def shown(entries, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(tables(entries))
    return console.file.getvalue()


def test_what_is_confirmed_stands_before_what_is_only_searched(entries, plan):
    for budget in plan.config.budgets:
        within = [entry for entry in entries if entry.budget == budget]
        assert [entry.rank for entry in within] == list(range(1, len(within) + 1))
        confirmed = [entry.confirmed is not None for entry in within]
        assert confirmed == sorted(confirmed, reverse=True)
        means = [entry.confirmed.accuracy.mean for entry in within if entry.confirmed]
        assert means == sorted(means, reverse=True)
        searched = [entry.validation[0] or -1 for entry in within if not entry.confirmed]
        assert searched == sorted(searched, reverse=True)


def test_every_schedule_tried_or_confirmed_has_a_row_for_each_budget_it_meets(
    entries, findings, storage_of_plan, plan
):
    tried = {FilterSchedule.parse(trial.user_attrs["schedule"]) for trial in storage_of_plan.trials("search")}
    tried |= {each.schedule for finding in findings.findings for each in (finding.rule, *finding.challengers)}
    assert {entry.schedule for entry in entries} == tried
    for schedule in tried:
        own = [entry for entry in entries if entry.schedule == schedule]
        met = [budget for budget in plan.config.budgets if budget.admits(own[0].costs)]
        assert [entry.budget for entry in own] == (met or [None])


def test_a_schedule_tried_twice_has_all_its_runs(entries, storage_of_plan):
    runs = {}
    for trial in storage_of_plan.trials("search"):
        schedule = trial.user_attrs["schedule"]
        runs[schedule] = runs.get(schedule, 0) + len(trial.user_attrs["runs"])
    for entry in entries:
        assert len(entry.scores) == runs.get(str(entry.schedule), 0)


def test_standard_error_needs_two_runs():
    entry = Entry(None, None, FilterSchedule((4, 4)), "band", None, (0.5, 0.7), Costs(1, 2, 3, 4))
    assert entry.validation == (pytest.approx(0.6), pytest.approx(0.1))
    assert replace(entry, scores=(0.5,)).validation == (0.5, None)
    assert replace(entry, scores=()).validation == (None, None)


def test_the_file_has_every_cost_and_an_empty_cell_for_what_is_not_known(tmp_path, findings, storage_of_plan, entries):
    assert write(tmp_path, findings, storage_of_plan) == entries
    with (tmp_path / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(entries)
    for row, entry in zip(rows, entries, strict=True):
        assert int(row["memory_bytes"]) == entry.costs.memory
        assert (row["test_runs"] == "") == (entry.confirmed is None)
        assert (row["rank"] == "") == (row["budget"] == "") == (entry.rank is None)
    assert rows[0]["budget"] == "params <= 1500"


def test_the_table_fits_80_columns_and_shows_five_of_each_budget(entries, findings):
    text = shown(entries)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if line.strip() in ("1,500 parameters", "40,000 MACs", "500 activations")]
    assert sum(line.startswith("5 ") for line in lines) == 3
    assert not any(line.startswith("6 ") for line in lines)
    best = next(finding.best for finding in findings.findings)
    assert f"{100 * best.accuracy.mean:.2f}±" in text
    assert "..." not in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (40, "# schedule test %"),
        (60, "# schedule origin test % validation %"),
        (80, "# schedule origin test % validation % params MACs act."),
        (110, "# schedule origin test % validation % params MACs act."),
    ],
)
def test_a_narrow_console_drops_costs_first_and_cuts_nothing(entries, width, headings):
    lines = shown(entries, width).splitlines()
    assert max(map(len, lines)) <= min(width, 80)
    assert [" ".join(line.split()) for line in lines if line.startswith("#")] == [headings] * 3
    rows = [line.split()[:2] for line in lines if line[:2] in ("1 ", "2 ", "3 ", "4 ", "5 ")]
    assert rows == [[str(each.rank), str(each.schedule)] for each in entries if each.rank and each.rank <= 5]


def test_long_schedules_are_whole_at_80_columns_and_folded_only_where_nothing_is_left_to_drop(plan):
    schedule, budget = FilterSchedule((128, 256, 512, 1024, 2048)), plan.config.budgets[0]
    entry = Entry(budget, 1, schedule, "combinations(5)", None, (0.5, 0.51), Costs(10**7, 12 * 10**8, 999_500, 1))
    assert " 128-256-512-1024-2048 " in shown([entry])
    assert shown([entry]).split()[-3:] == ["10M", "1.2G", "1.0M"]
    assert " 128-256-512-1024-2048 " in shown([entry], 60)
    lines = shown([entry], 20).splitlines()
    assert max(map(len, lines)) <= 20
    assert "".join("".join(line[1:].split()[:1]) for line in lines[3:]).startswith("128-256-512-1024-2048")


def test_the_note_says_where_the_rest_is(entries, tmp_path):
    said = note(entries, tmp_path, 0.95)
    assert "the 95 % interval" in said
    assert said.endswith(f"schedules and memory: {tmp_path / 'leaderboard.csv'}")
