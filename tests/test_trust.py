"""A study folder may be anybody's: nothing in it is imported, fetched or written through unless its user says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commanding import run_command
from planted_exports import Keeping, without_onnx
from planted_findings import make_findings, make_plan

from search import configfile, load_model, load_study, study
from search.annotations import Moment
from search.config import StudyConfig
from search.dashboard.live import Painter
from search.dataconfig import DataConfig
from search.errors import ConfigError, StorageError
from search.export import export_best
from search.exported import WEIGHTS
from search.networkconfig import NetworkConfig
from search.opening import plan_of
from search.sources import torchvisionsets
from search.trust import enter, refuse_links, without_fetching

NETWORK = {"network": NetworkConfig(family="factory", factory="planted_trap:build")}
DATA = {"data": DataConfig(source="factory", factory="planted_trap:build")}
NEEDS_CODE = (["report"], ["export"], ["confirm"], ["worker"])


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that says when it was imported; what is imported of it is nothing."""
    (tmp_path / "planted_trap.py").write_text("from pathlib import Path\nPath(__file__).with_name('sprung').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path / "sprung"
    sys.modules.pop("planted_trap", None)


@pytest.fixture
def command(monkeypatch, capsys):
    return lambda *arguments: run_command(monkeypatch, capsys, *arguments)


def stranger(where: Path, **values) -> Path:
    """A study folder that names code."""
    config = StudyConfig(**values)
    where.mkdir()
    study.create(where, config, ["maximize"], "data")
    configfile.write(config, where / "config.yaml")
    return where


@pytest.mark.parametrize("values", [NETWORK, DATA])
@pytest.mark.parametrize("verb", NEEDS_CODE)
def test_what_needs_the_code_of_a_folder_refuses_it_by_name(trap, tmp_path, command, verb, values):
    where = stranger(tmp_path / "s", **values)
    code, out, err = command(*verb, where)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert f"{next(iter(values))}.factory planted_trap:build" in err
    assert "--allow-code" in err
    assert not trap.exists()


@pytest.mark.parametrize("values", [NETWORK, DATA])
@pytest.mark.parametrize("verb", NEEDS_CODE[:3])
def test_where_it_is_allowed_it_is_imported(trap, tmp_path, command, verb, values):
    code, _, err = command(*verb, stranger(tmp_path / "s", **values), "--allow-code")
    assert (code, "planted_trap" in err) == (3, True)  # which has nothing of the name
    assert trap.exists()


@pytest.mark.parametrize("values", [NETWORK, DATA])
def test_what_needs_no_code_imports_none(trap, tmp_path, command, values):
    where = stranger(tmp_path / "s", **values)
    assert command("status", where)[0] == 0
    assert command("status", where, "--json")[0] == 0
    assert load_study(where).trials().empty
    assert load_study(where).runs().empty
    assert not trap.exists()


@pytest.mark.parametrize("values", [NETWORK, DATA])
def test_the_dashboards_pictures_are_made_without_it(trap, tmp_path, values):
    where = stranger(tmp_path / "s", **values)
    command = [sys.executable, "-P", "-m", "search.dashboard.painter", str(where)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 1
    assert "--allow-code" in ended.stderr
    assert not trap.exists()


def test_files_of_the_current_folder_are_no_modules_of_the_dashboard(tmp_path, monkeypatch):
    where = stranger(tmp_path / "s")
    marker = where / "sprung"
    (where / "json.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    monkeypatch.chdir(where)
    painter = Painter(where)
    painter.paint(Moment("search", 0, True))
    painter._process.wait(120)
    painter.end()
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", "import json"], check=True)  # which has the folder before all others
    assert marker.exists()


def test_files_of_the_current_folder_are_no_modules_of_a_run(tmp_path):
    marker = tmp_path / "sprung"
    for name in ("json", "pickle", "socket", "token"):
        (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    config = Path(__file__).parent.parent / "configs" / "planted.yaml"
    command = [sys.executable, "-P", "-m", "search", "run", str(config), "--trials", "8"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert not marker.exists()


@pytest.mark.parametrize("values", [NETWORK, DATA])
def test_from_python_it_is_allowed_by_name(trap, tmp_path, values):
    where = stranger(tmp_path / "s", **values)
    with pytest.raises(ConfigError, match="allow_code=True"):
        _ = load_study(where).answer
    assert not trap.exists()
    with pytest.raises(ConfigError, match="has no build"):
        _ = load_study(where, allow_code=True).answer
    assert trap.exists()


@pytest.mark.parametrize("values", [NETWORK, DATA])
def test_an_exported_folder_is_no_more_trusted(trap, tmp_path, command, values):
    plan = make_plan()
    with without_onnx():
        best = export_best(plan, make_findings(plan), tmp_path / "s", Keeping(plan), tell=lambda _: None)[0]
    config = best / "config.yaml"
    own = StudyConfig().model_copy(update=values).model_dump(mode="json")
    told = configfile.load(config.read_text(), "") | {"study": own}
    config.write_text(configfile.dump(told))
    code, out, err = command("train", best)
    assert (code, out, "--allow-code" in err) == (3, "", True)
    if values is NETWORK:  # else the model needs no code
        with pytest.raises(ConfigError, match="allow_code=True"):
            load_model(best)
        assert not trap.exists()
        with pytest.raises(ConfigError, match="has no build"):
            load_model(best, allow_code=True)
    else:
        load_model(best)
        assert not trap.exists()


class Sprung:
    """Unpickling it runs code."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


def test_a_checkpoint_runs_no_code(tmp_path, command):
    plan, marker = make_plan(), tmp_path / "sprung"
    with without_onnx():
        best = export_best(plan, make_findings(plan), tmp_path / "s", Keeping(plan), tell=lambda _: None)[0]
    (best / "config.yaml").write_text((best / "config.yaml").read_text().replace("noise", "digits"))
    (best / "trained").mkdir()
    torch.save({"fingerprint": Sprung(marker)}, best / "trained" / "checkpoint.ckpt")
    code, out, err = command("train", best, "--resume")
    assert (code, out, "is no checkpoint of a training (UnpicklingError)" in err) == (3, "", True)
    assert not marker.exists()
    torch.load(best / "trained" / "checkpoint.ckpt", weights_only=False)  # which would have run it
    assert marker.exists()


def test_data_that_are_not_there_are_not_fetched_for_a_folder(tmp_path, monkeypatch):
    config = StudyConfig(data=DataConfig(source="MNIST", path=str(tmp_path), download=True))
    asked = []

    def open_set(name, root, split, download):
        asked.append(download)
        raise LookupError

    monkeypatch.setattr(torchvisionsets, "_open", open_set)
    for allow_code in (False, True):
        with pytest.raises(LookupError):
            plan_of(config, allow_code=allow_code)
    assert asked == [False, True]
    assert without_fetching(config).model_dump() != config.model_dump()


@pytest.mark.parametrize("name", ["study.db", "figures", "best", "best/params-1500", "figures/ratios.svg"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, command, name):
    where = stranger(tmp_path / "s")
    outside = tmp_path / "outside"
    (where / "study.db").rename(outside)
    link = where / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    for verb in ("status", "report", "dashboard"):
        code, out, err = command(verb, where)
        assert (code, out, err.count("\n")) == (5, "", 1)
        assert f"{link} is a link to {outside}" in err


def test_links_that_stay_inside_and_folders_reached_by_one_are_fine(tmp_path):
    where = stranger(tmp_path / "s")
    (where / "kept.db").symlink_to("study.db")
    (where / "best").mkdir()
    (where / "best" / "last").symlink_to("../best")
    (tmp_path / "link").symlink_to(where)
    assert enter(str(tmp_path / "link")) == tmp_path / "link"


def test_what_is_trained_does_not_leave_the_exported_folder(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "trained").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="out of the study folder"):
        refuse_links(tmp_path / "best")
    assert not (tmp_path / WEIGHTS).exists()
