import pytest

from search import configfile
from search.cost import Budget
from search.device import device_memory
from search.errors import ConfigError

MEMORY = {"auto": 1000, "cpu": 1000, "cuda": 80_000}


def write(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("budgets: [memory <= 50 %]", 500),
        ("budgets: [memory<=0.5%]", 5),
        ("budgets: [memory <= 100 %]\ncompute: {device: cuda}", 80_000),
        ("budgets: [memory <= 7]", 7),
    ],
)
def test_a_share_of_the_device_becomes_bytes(tmp_path, text, limit):
    config = configfile.read(write(tmp_path, text), device_memory=MEMORY.__getitem__)
    assert config.budgets == (Budget("memory", limit),)


def test_an_override_may_be_a_share(tmp_path):
    config = configfile.read(write(tmp_path, "seed: 1"), ["budgets=[memory <= 10 %]"], MEMORY.__getitem__)
    assert config.budgets == (Budget("memory", 100),)


@pytest.mark.parametrize("share", ["0 %", "101 %", "-5 %", "x %"])
def test_no_share_is_refused_as_no_budget(tmp_path, share):
    with pytest.raises(ConfigError, match=r"is no budget; .* up to 100 % of the device's"):
        configfile.read(write(tmp_path, f"budgets: ['memory <= {share}']"), device_memory=MEMORY.__getitem__)


def test_only_memory_has_a_share(tmp_path):
    with pytest.raises(ConfigError, match=r"'params <= 50 %' is no budget"):
        configfile.read(write(tmp_path, "budgets: [params <= 50 %]"), device_memory=MEMORY.__getitem__)


@pytest.mark.parametrize("text", ["budgets: 3", "budgets: [3]", "budgets: [memory <= 5 %]\ncompute: {device: tpu}"])
def test_what_is_wrong_besides_is_still_refused_as_such(tmp_path, text):
    with pytest.raises(ConfigError, match=r"budgets|compute\.device"):
        configfile.read(write(tmp_path, text), device_memory=MEMORY.__getitem__)


def test_this_machine_has_memory():
    assert 2**28 < device_memory("cpu") < 2**50
