"""The command as a process, with real trainings of tiny networks: killed, interrupted, resumed, repeated."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search import study

pytestmark = pytest.mark.integration

TRIALS = 12
CONFIG = f"""
name: tiny
filters: {{stages: [{{low: 2, high: 16}}, {{low: 2, high: 16}}]}}
budgets: [params <= 300, activations <= 400]
training: {{epochs: 1}}
search: {{trials: {TRIALS}, seeds_per_trial: 2}}
confirm: {{looks: [2, 4], challengers: 2}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def start(config: Path, folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "search", "run", str(config), "--out", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out


def trials(folder: Path) -> list:
    return study.load(folder, "tiny").trials("search")


def wait_for_trials(process: subprocess.Popen, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        if (folder / "config.yaml").exists() and sum(t.state.is_finished() for t in trials(folder)) >= count:
            return
        time.sleep(0.05)
    pytest.fail("no trial finished in a minute")


def timeless(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [{key: value for key, value in row.items() if key != "wall_seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def complete(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("complete") / "a study"
    assert "300 parameters" in finish(start(config, folder, "--workers", "1"))
    return folder


def test_a_study_leaves_its_whole_folder(complete):
    names = {path.name for path in complete.iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "study.db",
        "trials.csv",
        "runs.csv",
        "verdict.json",
        "report.html",
    }
    assert {path.name for path in (complete / "best").iterdir()} == {"params-300", "activations-400"}
    assert len(timeless(complete / "trials.csv")) == TRIALS
    assert len(json.loads((complete / "verdict.json").read_text())["verdicts"]) == 2


def test_the_resolved_configuration_repeats_the_study(complete, tmp_path):
    finish(start(complete / "config.yaml", tmp_path / "again", "--workers", "1"))
    assert timeless(tmp_path / "again" / "trials.csv") == timeless(complete / "trials.csv")
    assert timeless(tmp_path / "again" / "runs.csv") == timeless(complete / "runs.csv")


def test_resuming_a_complete_study_trains_nothing(config, complete):
    before = (complete / "runs.csv").read_text()
    finish(start(config, complete, "--resume"))
    assert (complete / "runs.csv").read_text() == before


def test_other_terms_are_judged_beside_the_planned_verdicts_and_marked(complete, tmp_path):
    folder = tmp_path / "looked at"
    shutil.copytree(complete, folder)
    planned = json.loads((folder / "verdict.json").read_text())["verdicts"]
    command = [sys.executable, "-m", "search", "confirm", str(folder), "--margin", "0.2", "--budget", "params <= 250"]
    command += ["--looks", "2,6", "--json"]
    for _ in range(2):  # asked twice is asked once
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = json.loads(out)["verdicts"]
        assert found[: len(planned)] == planned
        (asked,) = found[len(planned) :]
        assert (asked["cost"], asked["limit"], asked["margin"], asked["exploratory"]) == ("params", 250, 0.2, True)
        assert asked["rule_accuracy"]["runs"] in (2, 6)
    assert not any(each["exploratory"] for each in planned)
    assert (folder / "config.yaml").read_text() == (complete / "config.yaml").read_text()


def test_a_killed_search_resumes_to_the_same_trials(config, complete, tmp_path):
    folder = tmp_path / "killed"
    process = start(config, folder, "--workers", "2")
    wait_for_trials(process, folder, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the study ended before it could be killed"
    kept = {t.number: t.user_attrs["runs"] for t in trials(folder) if t.state is TrialState.COMPLETE}
    assert len(kept) >= 3
    finish(start(config, folder, "--workers", "2", "--resume"))
    after = {t.number: t.user_attrs["runs"] for t in trials(folder)}
    assert len(after) == TRIALS
    assert {number: after[number] for number in kept} == kept, "a finished result was lost or trained again"
    assert timeless(folder / "trials.csv") == timeless(complete / "trials.csv")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_resume_goes_on(config, complete, tmp_path, number):
    folder = tmp_path / "interrupted"
    process = start(config, folder, "--workers", "2")
    wait_for_trials(process, folder, 2)
    process.send_signal(number)
    finish(process, 128 + number)  # a study that ended before the signal came would have exited with 0
    assert TrialState.RUNNING not in {trial.state for trial in trials(folder)}
    finish(start(config, folder, "--resume"))
    assert timeless(folder / "trials.csv") == timeless(complete / "trials.csv")


def parent(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"^PPid:\s*(\d+)$", status, re.M)[1])


@pytest.mark.parametrize("whom", [lambda worker: worker, parent], ids=["worker", "what forks workers"])
def test_a_killed_process_loses_nothing(config, complete, tmp_path, whom):
    folder = tmp_path / "killed"
    process = start(config, folder, "--workers", "2")
    wait_for_trials(process, folder, 1)
    owner, *_ = {trial.user_attrs["owner"] for trial in trials(folder) if "owner" in trial.user_attrs}
    os.kill(whom(int(owner.rpartition("/")[2])), signal.SIGKILL)
    finish(process)
    assert timeless(folder / "trials.csv") == timeless(complete / "trials.csv")
    assert any(trial.user_attrs["owner"] != owner for trial in trials(folder))


def test_launches_share_one_study(config, complete, tmp_path):
    folder = tmp_path / "shared"
    first = start(config, folder, "--workers", "1")
    wait_for_trials(first, folder, 1)
    second = start(config, folder, "--workers", "1", "--resume")
    worker = [sys.executable, "-m", "search", "worker", str(folder), "--workers", "1"]
    third = subprocess.Popen(worker, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for each in (first, second, third):
        finish(each)
    assert timeless(folder / "trials.csv") == timeless(complete / "trials.csv")
    assert [path.name for path in folder.glob("study.db*")] == ["study.db"]


def test_a_launch_of_another_configuration_is_refused_with_the_difference(config, tmp_path):
    folder = tmp_path / "refused"
    first = start(config, folder, "--workers", "1")
    wait_for_trials(first, folder, 1)
    _, err = (second := start(config, folder, "--resume", "--set", "confirm.margin=0.1")).communicate(timeout=60)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert second.returncode == 3
    assert "confirm.margin" in err


def test_max_wall_hours_stops_cleanly(config, tmp_path):
    folder = tmp_path / "brief"
    process = start(config, folder, "--set", "compute.max_wall_hours=0.001", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"filter-search run {folder}/config.yaml --out {folder} --resume" in err
    counts = json.loads(out)
    assert (counts["phase"], counts["trials"]) == ("search", TRIALS)
    assert TrialState.RUNNING not in {trial.state for trial in trials(folder)}
    assert len(trials(folder)) == TRIALS


def test_an_exported_candidate_trains_at_full_fidelity(complete):
    best = complete / "best" / "params-300"
    command = [sys.executable, "-m", "search", "train", str(best)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "test accuracy" in out
    assert json.loads((best / "trained" / "result.json").read_text())["epochs"] == 60
