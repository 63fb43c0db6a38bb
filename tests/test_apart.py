import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.apart import Apart, here
from search.errors import ConfigError, FilterSearchError
from search.networkconfig import NetworkConfig
from search.pricing import fit_cost_model
from search.schedule import FilterSchedule

ASKED = (NetworkConfig(family="residual", blocks_per_stage=1), (3, 16, 16), 4, 8, 1, 3, 64)


@pytest.fixture(scope="module")
def apart():
    with Apart() as process:
        yield process


def test_calls_are_made_by_another_process(apart):
    assert apart(os.getpid) == apart(os.getpid) != here(os.getpid) == os.getpid()


def test_what_is_raised_there_is_raised_here(apart):
    with pytest.raises(ConfigError, match=r"5 stages on images of 8x8"):
        apart(fit_cost_model, NetworkConfig(), (1, 8, 8), 4, 8, 1, 5, 64)


def test_networks_cost_the_same_wherever_they_are_priced(apart):
    there, ours = apart(fit_cost_model, *ASKED), fit_cost_model(*ASKED)
    for text in ("8-16-32", "8-8-8", "3-3-9", "5-9-9"):  # equal filters have polynomials of their own
        assert there.costs(FilterSchedule.parse(text)) == ours.costs(FilterSchedule.parse(text))


def test_who_coordinates_does_not_load_what_trains():
    code = """
import sys
import search.livedisplay, search.run
from search.apart import Apart
from search.config import StudyConfig
from search.device import count_workers, device_name
from search.plan import make_plan
from search.schedule import FilterSchedule

with Apart() as apart:
    plan = make_plan(StudyConfig(), apart)
    print(apart(device_name, "cpu"), apart(count_workers, plan.config.compute))
print(plan.cost_model.costs(FilterSchedule((8, 8, 8))))
assert not {"torch", "pytorch_lightning", "plotly"} & set(sys.modules), "heavy imports"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def started(code, **options):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def ends(process_id):
    """Whether a process has gone within half a minute."""
    deadline, trace = time.monotonic() + 30, Path(f"/proc/{process_id}")
    while time.monotonic() < deadline and trace.exists():
        time.sleep(0.05)
    return not trace.exists()


BUSY = """
import os, signal, sys, time
from search.apart import Apart

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: sys.exit(130))  # as the command does
with Apart() as apart:
    print(apart(os.getpid), flush=True)
    apart(time.sleep, 60)
"""


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_call_at_once(number, times):
    process = started(BUSY, start_new_session=True)
    other = int(process.stdout.readline())
    for _ in range(times):
        os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")
    assert ends(other)


def test_it_ends_with_whoever_started_it():
    process = started(BUSY)
    other = int(process.stdout.readline())
    process.kill()
    process.communicate()
    assert ends(other)


def test_a_function_that_ends_the_process_is_one_message():
    with Apart() as apart, pytest.raises(FilterSearchError, match=r"calls _exit ended with status 3 before"):
        apart(os._exit, 3)


def test_modules_of_the_current_folder_are_not_imported(tmp_path):
    trap = "from pathlib import Path; Path('sprung').touch(); raise SystemExit('sprung')"
    for name in ("pickle", "socket", "token", "torch", "struct"):
        (tmp_path / f"{name}.py").write_text(trap)
    process = started(
        "import os; from search.apart import Apart\nwith Apart() as apart: apart(os.getpid)", cwd=tmp_path
    )
    assert process.communicate() == ("", "")
    assert not (tmp_path / "sprung").exists()
