"""Every family of networks, from search to verdict and exported model: tiny studies with real trainings."""

import json
import subprocess
import sys

import pytest
import torch
from planted import conduct

from search.export import export_best
from search.exported import load_model
from search.findings import conclude
from search.worker import make_evaluator

pytestmark = pytest.mark.integration

BRIEF = {
    "data": {"source": "digits", "classes": [0, 1, 2]},
    "rules": {"compared": ["uniform"]},
    "training": {"epochs": 2, "learning_rate": 0.02},
    "search": {"trials": 4, "seeds_per_trial": 2},
    "confirm": {"looks": [2, 4], "challengers": 2, "margin": 0.02},
    "soundness": {"learning_rate_runs": 0},
}
FAMILIES = {
    "vgg": ({"family": "plain", "blocks_per_stage": 2}, 1, "params <= 4000"),
    "residual": ({"family": "residual", "blocks_per_stage": [1, 2]}, 1, "macs <= 60000"),
    "bottleneck": ({"family": "bottleneck", "stem": "large"}, 4, "params <= 2000"),
    "regnet": ({"family": "regnet", "group_width": 4, "squeeze_excite": True}, 4, "params <= 2000"),
    "inverted": ({"family": "inverted", "expansion": 2, "strides": [2, 2]}, 1, "memory <= 2 MiB"),
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("search.coordinate.POLL_SECONDS", 0)


@pytest.mark.parametrize(("network", "multiple", "budget"), FAMILIES.values(), ids=FAMILIES)
def test_a_family_runs_to_a_verdict_and_a_model(tmp_path, capsys, network, multiple, budget):
    filters = {"multiple": multiple, "stages": [{"low": multiple, "high": 32 * multiple}] * 2}
    plan, storage = conduct(tmp_path, **BRIEF, network=network, filters=filters, budgets=[budget])
    findings = conclude(plan, storage)
    (finding,) = findings.findings
    assert finding.verdict.runs in (2, 4)
    assert finding.verdict.outcome in ("near-optimal", "not near-optimal", "undecided")
    (folder,) = export_best(plan, findings, tmp_path, make_evaluator(plan))
    assert capsys.readouterr().err == ""  # such as why there is no model.onnx
    names: dict = {"__file__": str(folder / "model.py")}
    exec((folder / "model.py").read_text(), names)
    images = torch.randint(0, 17, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(names["load"]()(images), load_model(folder)(images))


def test_a_network_of_the_users_own_runs_to_a_verdict_from_the_command(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "network.py").write_text(
        "from torch import nn\n"
        "def build(filters, in_channels, classes):\n"
        "    first, second = filters\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, first, 5, stride=2), nn.Hardswish(),\n"
        "        nn.Conv2d(first, second, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(4 * second, classes))\n"
    )
    config = BRIEF | {
        "name": "own",
        "network": {"family": "factory", "factory": "mine.network:build"},
        "filters": {"stages": [{"low": 2, "high": 32}] * 2},
        "budgets": ["params <= 600"],
    }
    (tmp_path / "own.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "search", "run", "own.yaml", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    (verdict,) = json.loads(ended.stdout)["verdicts"]
    assert verdict["best_accuracy"]["runs"] in (2, 4)
    best = tmp_path / "studies" / "own" / "best" / "params-600"
    assert (best / "model.onnx").exists()
    script = "from model import load; import sys, torch; assert load()(torch.zeros(2, 1, 8, 8)).shape == (2, 3); "
    script += "assert 'search' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", script], cwd=best, env={"PYTHONPATH": f"{best}:{tmp_path}"}, check=True, timeout=120
    )
