"""Studies on a PostgreSQL server, as processes: shared by launches, and their password seen by nobody."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from postgres import PASSWORD

from search import study
from search.folder import is_running
from search.storageurl import VARIABLE

pytestmark = pytest.mark.integration

CONFIG = """
name: shared
filters: {stages: [{low: 2, high: 16}, {low: 2, high: 16}]}
budgets: [params <= 300]
table:
  surface: {best_ratio: 1.0}
  images: {}
  noise_sd: 0.004
  seconds_per_run: 0.2
search: {trials: 24, seeds_per_trial: 2}
confirm: {looks: [4, 8], challengers: 2}
compute: {lease_seconds: 3, workers: 2}
"""
BRIEF = CONFIG.replace("24", "2").replace("[4, 8]", "[4]").replace("0.2", "0.01")
SECRETS = (PASSWORD, "p%40ss%2Fw%3Ard%25", "ss/w:rd")


@pytest.fixture
def url(postgres, monkeypatch):
    given = postgres.url("shared").render_as_string(hide_password=False)
    monkeypatch.setenv(VARIABLE, given)
    return given


def start(*arguments: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "search", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=180)
    assert process.returncode == code, err
    assert not any(secret in out + err for secret in SECRETS)
    return out + err


def command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def contents(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_launches_share_a_study_and_nothing_keeps_its_password(url, tmp_path):
    (tmp_path / "shared.yaml").write_text(CONFIG)
    first = start("run", tmp_path / "shared.yaml", "--out", tmp_path / "first")
    while not (tmp_path / "first" / "config.yaml").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    refused = ended(start("run", tmp_path / "shared.yaml", "--out", tmp_path / "second"), 3)
    assert "add --resume" in refused
    others = [
        start("run", tmp_path / "shared.yaml", "--out", tmp_path / "second", "--resume"),
        start("worker", "shared", "--workers", "1"),  # by name: no folder at hand
    ]
    assert not any(secret in command_lines() for secret in SECRETS)
    for process in (first, *others):
        ended(process)
    found = study.load(tmp_path / "first", "shared")
    assert [trial.user_attrs["proposal"] for trial in found.trials("search")] == list(range(24))
    assert all(trial.state.is_finished() for trial in found.trials("search"))
    verdicts = [json.loads((tmp_path / each / "verdict.json").read_text()) for each in ("first", "second")]
    assert verdicts[0] == verdicts[1]
    assert (tmp_path / "first" / "trials.csv").read_bytes() == (tmp_path / "second" / "trials.csv").read_bytes()
    for folder in (tmp_path / "first", tmp_path / "second"):
        assert not (folder / "study.db").exists()
        assert not any(secret.encode() in contents(folder) for secret in SECRETS)
    before = contents(tmp_path / "first")
    ended(start("run", tmp_path / "shared.yaml", "--out", tmp_path / "first", "--resume"))
    assert (tmp_path / "first" / "runs.csv").read_bytes() in before


def test_what_cannot_be_reached_is_one_message_without_the_password(postgres, url, tmp_path):
    (tmp_path / "shared.yaml").write_text(CONFIG.replace("24", "8"))
    folder = tmp_path / "study"
    ended(start("run", tmp_path / "shared.yaml", "--out", folder))
    elsewhere = url.rpartition("/")[0] + "/elsewhere"
    for verb in ("status", "worker"):
        assert "environment names" in ended(start(verb, folder, **{VARIABLE: elsewhere}), 3)
        wrong = url.replace("%25@", "%25%25@")
        assert "password authentication failed" in ended(start(verb, folder, **{VARIABLE: wrong}), 5)
    assert "holds no study" in ended(start("worker", "another"), 5)
    postgres.stop()
    try:
        for verb in ("status", "report"):
            refused = ended(start(verb, folder), 5)
            assert "cannot be used for a study" in refused
            assert "waiting" not in refused
    finally:
        postgres.start()
    assert "8/8 trials" in ended(start("status", folder))


def said_by(process: subprocess.Popen, told: str) -> str:
    """What a process says until it says this."""
    found = ""
    while told not in found:
        line = process.stderr.readline()
        assert line, found
        found += line
    return found


def test_what_launches_work_waits_for_a_server_that_is_away(postgres, url, tmp_path):
    (tmp_path / "shared.yaml").write_text(BRIEF)
    folder = tmp_path / "study"
    postgres.stop()
    try:
        first = start("run", tmp_path / "shared.yaml", "--out", folder)
        said = said_by(first, "waiting for it, 120 seconds at most")
    finally:
        postgres.start()
    said += ended(first)
    postgres.stop()
    try:
        others = [start("worker", study) for study in (folder, folder, "shared")]
        told = [said_by(each, "waiting for it") for each in others]
        assert not is_running(folder)  # none keeps the others out
    finally:
        postgres.start()
    told = [said, *(before + ended(each) for before, each in zip(told, others, strict=True))]
    assert [each.count("waiting for it") for each in told] == [1] * 4
    assert all("Connection refused" in each for each in told)


def test_what_launches_work_waits_for_a_connection(url, tmp_path):
    import psycopg

    (tmp_path / "shared.yaml").write_text(BRIEF)
    folder = tmp_path / "study"
    ended(start("run", tmp_path / "shared.yaml", "--out", folder))
    taken = []
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(url.replace("+psycopg", "")))
    try:
        assert "too many clients" in ended(start("status", folder), 5)
        worker = start("worker", folder)
        said = said_by(worker, "waiting for it")
    finally:
        for each in taken:
            each.close()
    assert "too many clients" in said
    ended(worker)
