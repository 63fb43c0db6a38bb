"""Study files from strangers: what this program did not write is refused by one message, what it may have is text."""

import base64
import csv
import html
import json
import shutil
import sqlite3
import zlib
from pathlib import Path

import pytest
from commanding import run_command
from planted import Planted, conduct, peaked

from search import configfile, study
from search.dashboard.live import Live
from search.runrecord import unpack_counts
from search.wellformed import environment_of

SCRIPT = "</script><script>alert(1)</script>{{ 7 * 7 }}{% for %}\x1b]0;owned\x07\x1b[31m[red]=cmd|'/C calc'!A0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study judged, as its database and configuration."""
    where = tmp_path_factory.mktemp("studies") / "one"
    changes = {"search": {"trials": 12}, "confirm": {"looks": [4]}}
    changes |= {"budgets": ["params <= 1500"], "question": SCRIPT}
    plan, storage = conduct(where, Planted(peaked(2.0, 0.02)), **changes)
    storage.backend.remove_session()
    storage.backend.engine.dispose()
    configfile.write(plan.config, where / "config.yaml")
    return where


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "from-a-stranger")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(monkeypatch, capsys, *arguments)


def change(folder: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(folder / "study.db")
    with connection:
        assert connection.execute(statement, values).rowcount
    connection.close()


def of_trial(key, value, state="COMPLETE", study="digits"):
    """Another value of an attribute of all trials of a state."""
    text = value if isinstance(value, str) and value.startswith("raw:") else f"raw:{json.dumps(value)}"
    statement = (
        "UPDATE trial_user_attributes SET value_json = ? WHERE key = ? AND trial_id IN (SELECT trial_id FROM trials "
        "JOIN studies USING (study_id) WHERE study_name = ? AND state = ?)"
    )
    return statement, text.removeprefix("raw:"), key, study, state


def of_study(key, value, study="digits", kind="user"):
    statement = (
        f"INSERT OR REPLACE INTO study_{kind}_attributes (study_id, key, value_json) SELECT study_id, ?, ? FROM "
        "studies WHERE study_name = ?"
    )
    return statement, key, json.dumps(value), study


RUN = {"seed": 1, "wall_seconds": 1.0}
CASE = {"budget": "params <= 1500", "rule": "doubling", "schedule": "4-8-16", "challengers": [["8-8-8", "uniform"]]}
HOSTILE = {
    "origin of markup": of_trial("origin", "[/red]"),
    "origin of escapes": of_trial("origin", "band\x1b]0;owned\x07"),
    "origin of a formula": of_trial("origin", "=cmd|'/C calc'!A0"),
    "origin of a list": of_trial("origin", ["band"]),
    "budget of a path": of_trial("budget", "../../x <= 1500"),
    "budget of a number": of_trial("budget", 3),
    "schedule of text": of_trial("schedule", "<script>"),
    "schedule of a path": of_trial("schedule", "../8"),
    "schedule of two stages": of_trial("schedule", "8-8"),
    "schedule of millions": of_trial("schedule", "8-" * 10**6 + "8"),
    "proposal of text": of_trial("proposal", "0"),
    "costs of text": of_trial("costs", {"params": "many"}),
    "costs without bound": of_trial("costs", {"params": 10**400}),
    "costs of another kind": of_trial("costs", {"watts": 1}),
    "runs of nothing": of_trial("runs", []),
    "runs of text": of_trial("runs", "none"),
    "run without an end": of_trial("runs", [RUN]),
    "accuracy of text": of_trial("runs", [RUN | {"accuracy": "1"}]),
    "accuracy beyond 1": of_trial("runs", [RUN | {"accuracy": 7}]),
    "accuracy that is no number": of_trial("runs", 'raw:[{"seed": 1, "wall_seconds": 1, "accuracy": NaN}]'),
    "time without end": of_trial("runs", 'raw:[{"seed": 1, "wall_seconds": Infinity, "accuracy": 0.5}]'),
    "reason of a formula": of_trial("runs", [RUN | {"accuracy": 0.5}, RUN | {"reason": "=1+1"}]),
    "no JSON": of_trial("runs", "raw:{"),
    "JSON without bottom": of_trial("runs", "raw:" + "[" * 10**5),
    "attribute missing": ("DELETE FROM trial_user_attributes WHERE key = 'origin'",),
    "values missing": ("DELETE FROM trial_values",),
    "number of text": ("UPDATE trials SET number = '<b>'",),
    "date of text": ("UPDATE trials SET datetime_complete = 'noon'",),
    "first of text": of_trial("first", "0", study="digits:confirm"),
    "count without bound": of_trial("count", 10**12, study="digits:confirm"),
    "runs fewer than counted": of_trial("runs", [RUN | {"accuracy": 0.5}], study="digits:confirm"),
    "images that unpack to gigabytes": of_trial(
        "correct", base64.b64encode(zlib.compress(bytes(2**28), 9)).decode(), study="digits:confirm"
    ),
    "images that are no text": of_trial("correct", 7, study="digits:confirm"),
    "cases of text": of_study("cases", "all", "digits:confirm"),
    "case of a path": of_study("cases", [CASE | {"budget": "../../x <= 1500"}], "digits:confirm"),
    "case of another rule": of_study("cases", [CASE | {"rule": "__import__('os')"}], "digits:confirm"),
    "case of two stages": of_study("cases", [CASE | {"schedule": "4-8"}], "digits:confirm"),
    "challenger of markup": of_study("cases", [CASE | {"challengers": [["8-8-8", "[/x]"]]}], "digits:confirm"),
    "exploration of text": of_study("explorations", [{"confirm": 1, "cases": []}], "digits:confirm"),
    "configuration of text": of_study("config", "none"),
    "data of a list": of_study("data", []),
    "pictures of text": of_study("annotated", {"moment": {}, "note": "", "plots": [], "whole": True}),
    "note in pieces": of_study("dashboard:note_str:7", "x", kind="system"),
    "note of a list": of_study("dashboard:note_str:0", [], kind="system"),
    "note without a version": of_study("dashboard:note_ver", "one", kind="system"),
}


def files(folder):
    return {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_written_here_is_refused_and_nothing_is_written(folder, command, statement):
    change(folder, *statement)
    before = files(folder)
    for verb in (["status"], ["report"]):
        code, out, err = command(*verb, folder)
        assert (code, out, err.count("\n")) == (5, "", 1), err
        assert err.startswith(f"filter-search: {folder / 'study.db'} ")
        assert len(err) < 700
        assert "\x1b" not in err
    assert files(folder) == before


@pytest.mark.parametrize("verb", [["status", "--json"], ["export"], ["confirm"]])
def test_every_verb_looks_first(folder, command, verb):
    change(folder, *HOSTILE["origin of markup"])
    before = files(folder)
    code, out, err = command(*verb, folder)
    assert (code, out, err.count("\n")) == (5, "", 1)
    assert files(folder) == before


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE)
def test_the_dashboard_shows_what_it_can_and_fails_by_one_line(folder, capsys, statement):
    change(folder, *statement)
    config = configfile.read(folder / "config.yaml")
    try:
        storage = study.load(folder, config.name)
    except Exception:
        return  # the verb ends
    live = Live(folder, config, storage, edits=False)
    live.start()
    try:
        live._ready.wait(30)
        answered = []
        body = live({"PATH_INFO": "/api/studies/1", "REQUEST_METHOD": "GET"}, lambda *answer: answered.append(answer))
        (status, headers, *_), _ = answered[0], b"".join(body)
    finally:
        live.end()
        live._thread.join()
    said = capsys.readouterr().err
    assert (status.startswith("503"), said.count("\n")) in ((False, 0), (True, 1)), said
    assert "Traceback" not in said
    assert ("Content-Type", "application/json") in headers or status.startswith("503")


@pytest.mark.integration
def test_what_may_be_any_text_is_shown_as_text(folder, command):
    for key, name in (("detail", "digits"), ("detail", "digits:confirm")):
        insert = (
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT trial_id, ?, ? FROM trials JOIN "
            "studies USING (study_id) WHERE study_name = ?"
        )
        change(folder, insert, key, json.dumps(SCRIPT * 100), name)
    note = ("dashboard:note_ver", 1), ("dashboard:note_str:0", SCRIPT)
    for key, value in note:
        change(folder, *of_study(key, value, kind="system"))
    (folder / "environment.json").write_text(json.dumps({"command": SCRIPT, "python": SCRIPT, "started": SCRIPT}))
    outside = {path for path in folder.parent.iterdir() if path != folder}

    for verb in (["status"], ["status", "--json"], ["report"]):
        code, out, err = command(*verb, folder)
        assert (code, err) == (0, ""), verb
        assert "\x1b" not in out
    page = (folder / "report.html").read_text()
    assert html.escape("</script><script>alert(1)</script>{{ 7 * 7 }}", quote=False) in page
    assert "<script>alert" not in page
    assert "\x1b]0;owned\x07[" not in page
    assert {path for path in folder.parent.iterdir() if path != folder} == outside
    for name in ("trials.csv", "runs.csv", "leaderboard.csv"):
        for row in csv.reader((folder / name).read_text().splitlines()):
            assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in row)
            assert all(float(cell) is not None for cell in row if cell.startswith("-"))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "[" * 10**5, '{"hardware": 1}', '{"packages": ["x"]}', '{"hardware": {"cores": "4"}}', '"x"'],
)
def test_an_environment_that_is_none_costs_nothing(tmp_path, content):
    (tmp_path / "environment.json").write_text(content)
    assert environment_of(tmp_path) == {}


def test_an_environment_of_ours_is_read(tmp_path):
    said = json.loads((Path(__file__).parent.parent / "studies" / "digits" / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps(said))
    assert environment_of(tmp_path) == said


@pytest.mark.parametrize("text", ["", "?", "AAAA", base64.b64encode(zlib.compress(b"abcd")[:-2]).decode()])
def test_counts_that_were_not_packed_here_are_refused(text):
    with pytest.raises((ValueError, zlib.error)):
        unpack_counts(text)
