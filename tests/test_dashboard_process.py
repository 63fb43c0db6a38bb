"""The dashboard as a process of its own, alone and beside a search that is running."""

import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from planted_findings import make_storage

from search import configfile, study

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
TRIALS = 40


def start(*arguments):
    command = [sys.executable, "-m", "search", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.fixture
def dashboard():
    """Starts one and gives its process and address."""
    started = []

    def serve(folder):
        started.append(start("dashboard", folder, "--port", "0"))
        return started[-1], urlsplit(started[-1].stdout.readline().strip())

    yield serve
    for process in started:
        process.kill()
        process.communicate()


def ask(address, method, path):
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    try:
        return answer.status, answer.getheader("Location"), answer.read().decode(errors="replace")
    finally:
        connection.close()


def detail(address):
    return json.loads(ask(address, "GET", "/api/studies/1?after=0")[2])


def files(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def end(process):
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def test_the_verb_serves_until_it_is_stopped(dashboard, plan, tmp_path):
    configfile.write(plan.config, tmp_path / "config.yaml")
    trials = make_storage(plan, tmp_path).trials("search")
    before = files(tmp_path)
    process, address = dashboard(tmp_path)
    assert (address.hostname, address.path) == ("127.0.0.1", "/dashboard/studies/1")
    status, location, _ = ask(address, "GET", "/")
    assert (status, urlsplit(location).path) == (302, "/dashboard")
    assert "<title>Optuna Dashboard</title>" in ask(address, "GET", "/dashboard")[2]
    assert len(detail(address)["trials"]) == len(trials)
    assert ask(address, "HEAD", "/dashboard/studies/1")[::2] == (200, "")
    assert ask(address, "GET", "/favicon.ico")[0] == 200  # without a word on encodings
    status, _, said = ask(address, "POST", "/api/studies")
    assert (status, "read only" in said) == (405, True)
    assert end(process) == (130, "")
    assert files(tmp_path) == before


def test_a_search_does_not_notice_it(dashboard, tmp_path):
    folder = tmp_path / "watched"
    sizes = ("--trials", TRIALS, "--set", "confirm.looks=[4, 8]", "--set", "search.seeds_per_trial=2")
    search = start("run", ROOT / "configs" / "planted.yaml", "--out", folder, *sizes)
    deadline = time.monotonic() + 60
    while not (folder / "study.db").exists() or not (folder / "config.yaml").exists():
        assert search.poll() is None, search.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process, address = dashboard(folder)
    seen = [len(detail(address)["trials"])]
    assert search.poll() is None  # or nothing was watched
    while search.poll() is None:
        seen.append(len(detail(address)["trials"]))
        assert time.monotonic() < deadline + 120
        time.sleep(0.2)
    assert search.returncode == 0, search.communicate()
    search.communicate()
    after = files(folder)
    while seen[-1] < TRIALS and time.monotonic() < deadline + 120:
        seen.append(len(detail(address)["trials"]))
        time.sleep(0.2)
    assert seen == sorted(seen)
    assert end(process) == (130, "")
    assert seen[-1] == len(study.load(folder, "planted").trials("search")) == TRIALS
    assert files(folder) == after
