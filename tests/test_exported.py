import subprocess
import sys

import pytest
import torch
from planted_exports import Keeping, random_network, without_onnx
from planted_findings import make_findings
from safetensors.torch import load_file, save_file

import search
from search.errors import ConfigError
from search.export import export_best
from search.exported import load_model, read
from search.plainyaml import dump, load
from search.schedule import FilterSchedule


@pytest.fixture
def folder(plan, tmp_path):
    with without_onnx():
        return export_best(plan, make_findings(plan), tmp_path, Keeping(plan), tell=lambda _: None)[0]


def test_a_model_takes_raw_images_and_gives_the_studys_logits(plan, folder):
    model, images = load_model(folder), torch.from_numpy(plan.data.images[:9])
    values = load((folder / "config.yaml").read_text(), "")
    mean, deviation = (torch.tensor(values["normalisation"][key]).view(-1, 1, 1) for key in ("mean", "deviation"))
    own = random_network(plan, FilterSchedule((8, 8, 8)), values["seed"])
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(images), own((images.float() - mean) / deviation))
        assert torch.equal(model(images), model(images.double()))


def test_loading_moves_no_generator_and_is_repeatable(folder):
    before = torch.get_rng_state()
    first, second = load_model(folder).state_dict(), load_model(str(folder)).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_weights_file_is_the_networks_own_state_dict(folder):
    load_model(folder).network.load_state_dict(load_file(folder / "weights.safetensors"))


def test_loading_runs_no_code_found_in_the_folder(folder):
    (folder / "model.py").write_text("raise SystemExit('run')")
    load_model(folder)


def test_the_package_has_it_under_its_own_name_without_loading_torch(folder):
    assert search.load_model is load_model
    assert search.__all__ == ["load_model"]
    with pytest.raises(AttributeError, match="module 'search' has no attribute 'load_models'"):
        search.load_models  # noqa: B018 # asked for
    lazy = "import search, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", lazy], check=True)


@pytest.mark.parametrize("content", [None, "", "- 1", "schema: 2", "schema: 1\nschedule: 4-8\nseed: -1\nstudy: {}"])
def test_what_is_no_export_is_one_configuration_error(tmp_path, content):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    for opened in (load_model, read):
        with pytest.raises(ConfigError, match=r"is no exported configuration \(schema 1\); name a folder that"):
            opened(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("normalisation", {"mean": [1.0, 2.0], "deviation": [1.0]}), ("input_shape", [8, 8]), ("classes", "ten")],
)
def test_a_damaged_configuration_is_told(folder, key, value):
    values = load((folder / "config.yaml").read_text(), "") | {key: value}
    (folder / "config.yaml").write_text(dump(values))
    with pytest.raises(ConfigError, match="is no exported configuration"):
        load_model(folder)


def test_missing_weights_are_told(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"weights.safetensors cannot be read \(No such file .*\); export the study"):
        load_model(folder)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_weights_of_another_network_are_told(folder, damage):
    path = folder / "weights.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        save_file({"head.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ConfigError, match=r"does not hold the weights of 8-8-8 as the config\.yaml beside it has it"):
        load_model(folder)
