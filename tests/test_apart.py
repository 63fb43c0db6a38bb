import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.apart import Apart, here
from search.errors import ConfigError
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_it_ends_with_whoever_started_it(number):
    code = """
import os
from time import sleep
from search.apart import Apart

with Apart() as apart:
    print(apart(os.getpid), flush=True)
    sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    other = int(process.stdout.readline())
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert said.count("KeyboardInterrupt") == (number == signal.SIGINT)
    deadline, trace = time.monotonic() + 30, Path(f"/proc/{other}")
    while time.monotonic() < deadline and trace.exists():
        time.sleep(0.05)
    assert not trace.exists()
