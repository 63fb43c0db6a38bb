"""The dashboard as people see it: a real browser over real studies."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from planted_findings import make_storage

from search import configfile
from search.annotations import annotate
from search.folder import STUDIES

ROOT = Path(__file__).parent.parent


def serve(folder):
    """The dashboard's process and address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "search", "dashboard", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    return process, process.stdout.readline().strip().partition("/dashboard")[0]


def end(process):
    process.send_signal(signal.SIGINT)
    code = process.wait(30)
    process.stdout.close()
    return code


@pytest.fixture(scope="module")
def planted(plan, findings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    configfile.write(plan.config, folder / "config.yaml")
    annotate(make_storage(plan, folder), findings)
    (folder / "report.html").write_text("<script>document.title = 'ran'</script>")
    process, address = serve(folder)
    yield address
    assert end(process) == 130  # as every verb that is asked to stop


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "digits"
    shutil.copytree(ROOT / STUDIES / "digits", folder)
    process, address = serve(folder)
    yield address
    end(process)


def test_a_study_opens_with_its_pictures(page, planted):
    page.goto(f"{planted}/dashboard")
    page.get_by_text("1. planted").click()
    page.wait_for_selector("#plot-history .scatterlayer .point")
    page.wait_for_selector("[id='user-defined-plot:filter-search-confirmation'] .main-svg")
    assert page.get_by_text("Is doubling near-optimal on noise?").count()
    assert page.locator("[aria-label='delete study']:visible").count() == 0


def test_the_note_gives_the_answer(page, planted, findings):
    page.goto(f"{planted}/dashboard/studies/1/note")
    page.get_by_role("heading", name=findings.plan.config.question).wait_for()
    assert page.get_by_text("near-optimal").count()


def test_a_trial_can_be_opened(page, digits):
    page.goto(f"{digits}/dashboard/studies/1/trials")
    page.get_by_text("Trial 3", exact=True).first.click()
    page.get_by_text("Rule doubling, aimed at").wait_for()
    page.get_by_text("multiply-adds (MACs) per image").wait_for()


@pytest.mark.parametrize("place", ["1", "1/analytics", "2", "3"])
def test_every_page_of_a_real_study_is_drawn(page, digits, place):
    page.goto(f"{digits}/dashboard/studies/{place}")
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.wait_for_load_state("networkidle")


def test_artifacts_are_saved_and_never_shown(page, planted):
    page.goto(f"{planted}/dashboard/studies/1")
    link = page.locator("a[href^='/artifacts/1/']").first
    link.wait_for(state="attached")
    with page.expect_download() as saved:
        page.evaluate("address => { location.href = address }", link.get_attribute("href"))
    assert saved.value.suggested_filename == "report.html"


@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT"])
def test_what_would_change_the_study_is_refused(page, planted, method):
    page.goto(f"{planted}/dashboard")
    answer = page.request.fetch(f"{planted}/api/studies/1", method=method)
    assert answer.status == 405
    assert "read only" in answer.text()
    assert len(page.request.get(f"{planted}/api/studies").json()["study_summaries"]) == 3


def test_a_foreign_host_is_refused(planted):
    request = urllib.request.Request(f"{planted}/api/studies", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as answer:
        assert answer.code == 403
        assert b"host name" in answer.read()
