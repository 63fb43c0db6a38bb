"""The first configuration of a user's own images works as it stands."""

import numpy as np
import pytest
from PIL import Image

from search import configfile, starter
from search.cost import Budget
from search.errors import ConfigError, DataError
from search.metering import price
from search.plan import make_plan
from search.schedule import FilterSchedule
from search.sources import load
from search.splits import Splits


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def shapes(path, *shape):
    np.savez(
        path, x_train=np.random.default_rng(0).integers(0, 256, (30, *shape), np.uint8), y_train=np.arange(30) % 3
    )


@pytest.mark.parametrize(
    ("side", "stages", "stem"),
    [(8, 3, "small"), (32, 3, "small"), (33, 4, "small"), (64, 4, "small"), (96, 5, "large")],
)
def test_stages_and_stem_suit_the_images(here, side, stages, stem):
    shapes(here / "shapes.npz", side, side + 4)
    config = starter.start("shapes.npz").config
    assert len(config.filters.stages) == stages
    assert config.network.stem == stem
    data = load(config.data)
    doubling = FilterSchedule(tuple(8 * 2**stage for stage in range(stages)))
    training = Splits(data, config.data).train_validation(0).training
    batch = config.training.batch_of(len(training))
    costs = price(config.network, doubling, data.image_shape, data.classes, batch)
    assert [budget.cost for budget in config.budgets] == ["params", "macs", "memory"]
    for budget in config.budgets:
        assert budget.admits(costs)
        assert costs[budget.cost] > 0.9 * budget.limit
    assert make_plan(config).judged


def test_limits_have_two_figures(here):
    shapes(here / "shapes.npz", 8, 8)
    params, macs, memory = (budget.limit for budget in starter.start("shapes.npz").config.budgets)
    assert str(params)[2:].strip("0") == str(macs)[2:].strip("0") == ""
    assert Budget("memory", memory).in_words == f"memory <= {memory / 2**10:.1f} KiB"
    assert memory % 2**10 == 0
    assert str(memory // 2**10)[2:].strip("0") == ""


def test_a_configuration_is_read_back_as_it_was(here):
    shapes(here / "shapes.npz", 8, 8)
    config = starter.start("shapes.npz").config
    (here / "shapes.yaml").write_text(configfile.template(config, "schema.json"))
    assert configfile.read(here / "shapes.yaml") == config


@pytest.mark.parametrize("name", ["my pets!", "..pets", "-pets", "pets"])
def test_a_folder_gives_a_name_that_files_may_have(here, name):
    for folder in ("cat", "dog"):
        for index in range(4):
            (here / name / folder).mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 8, 3), 10 * index + len(name), np.uint8)
            Image.fromarray(pixels).save(here / name / folder / f"{index}.png")
    (here / name / "readme.txt").touch()
    begun = starter.start(f"./{name}")
    assert begun.config.name == starter.study_name(f"./{name}") == name.strip("-.!").replace(" ", "-")
    assert (begun.config.data.source, begun.config.data.path) == ("folder", f"./{name}")
    assert "1 file (readme.txt) not named like an image: ignored" in begun.remarks


def test_a_function_of_one_s_own(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "own_shapes.py").write_text(
        "import numpy as np\ndef load():\n    return {'x_train': np.zeros((12, 8, 8)), 'y_train': np.arange(12) % 2}\n"
    )
    config = starter.start("own_shapes:load").config
    assert (config.name, config.data.source, config.data.factory) == ("own_shapes", "factory", "own_shapes:load")


def test_a_set_that_is_not_there_is_assumed_and_said_to_be(here, monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    begun = starter.start("CIFAR100")
    assert (begun.config.data.source, begun.config.data.path, begun.config.data.download) == (
        "CIFAR100",
        "~/data",
        False,
    )
    assert "CIFAR100 was looked for below" in begun.remarks[0]
    assert begun.remarks[1].startswith(
        "stages and budgets suit 10 classes of 32x32 colour images; once the set is there"
    )


@pytest.mark.parametrize("source", ["digits", "combinations"])
def test_embedded_sources_keep_their_defaults(source):
    assert starter.start(source).config == configfile.parse({"name": source, "data": {"source": source}}, "")


@pytest.mark.parametrize("source", ["nowhere", "folder", "npz", "factory"])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ConfigError, match=r"no source and no folder; give digits, combinations, one of torchvision's"):
        starter.start(source)


def test_images_that_cannot_be_read_are_told():
    with pytest.raises(DataError, match=r"nowhere.npz does not exist"):
        starter.start("nowhere.npz")
    with pytest.raises(ConfigError, match="importing nowhere failed"):
        starter.start("nowhere:load")
