import shutil
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
from search.splits import Splits


@pytest.fixture(scope="module")
def written(plan, tmp_path_factory):
    with without_onnx():
        where = tmp_path_factory.mktemp("study")
        return export_best(plan, make_findings(plan), where, Keeping(plan), tell=lambda _: None)[0]


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "params-1500")


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
    assert "load_model" in search.__all__
    with pytest.raises(AttributeError, match="module 'search' has no attribute 'load_models'"):
        search.load_models  # noqa: B018 # asked for
    lazy = "import search, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", lazy], check=True)


def damaged(folder, **changes):
    """The folder with other values in its configuration; None takes a key away."""
    values = load((folder / "config.yaml").read_text(), "") | changes
    (folder / "config.yaml").write_text(dump({key: value for key, value in values.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "its schema is 2;"),
        ({"schema": None}, "the key schema is missing;"),
        ({"seed": None}, "the key seed is missing;"),
        ({"seed": True}, "seed is True, not a whole number from 0;"),
        ({"schedule": 8}, "schedule is 8, not a schedule in text;"),
        ({"study": "x"}, "study is 'x', not a study's configuration;"),
        ({"input_shape": [8, 8]}, r"input_shape is \[8, 8\], not three whole numbers from 1 to 1,048,576: channels"),
        ({"input_shape": [10**12, 8, 8]}, r"input_shape is \[1000000000000, 8, 8\], not"),
        ({"classes": "ten"}, "classes is 'ten', not a whole number from 1 to 1,048,576;"),
        ({"classes": None}, "the key classes is missing;"),
        ({"normalisation": {"mean": [1.0]}}, "the key deviation is missing;"),
        ({"normalisation": {"mean": [1.0, 2.0], "deviation": [1.0]}}, r"mean is \[1.0, 2.0\], not of each of 1 chann"),
        ({"normalisation": {"mean": [float("nan")], "deviation": [1.0]}}, r"mean is \['?\.?nan'?\], not of each"),
        ({"normalisation": {"mean": [1.0], "deviation": [0.0]}}, r"deviation is \[0.0\], .* a finite number above 0;"),
    ],
)
def test_a_damaged_configuration_is_told_with_what_came(folder, changes, said):
    with pytest.raises(ConfigError, match=r"is no exported configuration \(schema 1\): " + said):
        load_model(damaged(folder, **changes))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"", "it holds no keys"),
        (b"- 1", "it holds no keys"),
        (b"\xff", "it is no text"),
    ],
)
def test_what_is_no_configuration_is_told_with_what_came(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    for opened in (load_model, read):
        with pytest.raises(ConfigError, match=rf"is no exported configuration \(schema 1\): {said}.*; name a folder"):
            opened(tmp_path)


def test_a_configuration_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"\(schema 1\): it cannot be read \(Is a directory\)"):
        read(tmp_path)


@pytest.mark.parametrize("schedule", ["1200000-600000-1000000", "8-8-1000000000000", "99999999-99999999-99999999"])
def test_an_absurd_schedule_is_refused_before_anything_is_built(folder, schedule, monkeypatch):
    monkeypatch.setattr("search.exported.build", None)
    for opened in (load_model, read):
        with pytest.raises(ConfigError, match=rf"schedule {schedule} in .* weights; at most 4,294,967,296 are built"):
            opened(damaged(folder, schedule=schedule))


@pytest.mark.parametrize("filters", [(8, 2**15 - 1, 8), (4096, 4096, 4096)])
def test_a_large_schedule_is_not_refused(folder, filters):
    assert read(damaged(folder, schedule=str(FilterSchedule(filters)))).schedule.filters == filters


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 8, 8), (1, 8, 8), (2, 64)])
def test_images_of_another_shape_are_refused(folder, shape):
    with pytest.raises(ValueError, match=r"give \(batch, channels, height, width\) of \(1, 8, 8\) each"):
        load_model(folder)(torch.zeros(shape))


def test_the_configuration_has_type_and_range_of_the_images_that_trained(plan, folder):
    values = load((folder / "config.yaml").read_text(), "")
    training = Splits(plan.data, plan.config.data).train_validation(values["seed"], 1.0).training
    seen = plan.data.images[training]
    assert values["input_values"] == {"dtype": "uint8", "minimum": seen.min(), "maximum": seen.max()}
    assert (seen.min(), seen.max()) == (0, 16)


@pytest.mark.parametrize("name", ["README.md", "model.py"])
def test_the_files_say_which_values_and_which_order(folder, name):
    said = " ".join((folder / name).read_text().split())
    assert "uint8 with values from 0 to 16" in said
    assert "in the order of the labels 0 to 3." in said


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
