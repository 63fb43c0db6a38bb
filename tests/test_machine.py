from dataclasses import replace

import pytest

from search import folder
from search.config import StudyConfig
from search.machine import Machine, differences, machines, note, noted
from search.study import create, create_in_memory, load

PACKAGES = {"torch": "2.14.0", "numpy": "2.3.1"}
MACHINE = Machine("3.12.4", "0.9.0", "0123456789abcdef+", "NVIDIA H200", PACKAGES)


@pytest.fixture
def storage():
    return create_in_memory(StudyConfig(), ["maximize"], None)


@pytest.mark.parametrize("device", ["cpu", "NVIDIA H200"])
def test_a_machine_is_what_environment_json_says_of_it(device):
    written = folder.environment(["filter-search", "run"], 7, 2, device)
    machine = Machine.of(written)
    assert machine == Machine.here(device)
    assert machine.device == (written["hardware"]["processor"] if device == "cpu" else device)
    assert machine.facts()["torch"] == written["packages"]["torch"]
    assert machine.facts()["Python"] == written["python"]


def test_command_seed_workers_time_and_name_do_not_count(monkeypatch):
    first = Machine.of(folder.environment(["a"], 0, 1, "cpu"))
    monkeypatch.setattr("time.gmtime", lambda: (1999,) + (1,) * 8)
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    again = Machine.of(folder.environment(["b"], 1, 2, "cpu"))
    assert again.digest() == first.digest()
    assert len(first.digest()) == 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"packages": PACKAGES | {"torch": "2.15.0"}}, ["torch 2.14.0, then 2.15.0"]),
        ({"device": "NVIDIA A100"}, ["device NVIDIA H200, then NVIDIA A100"]),
        ({"python": "3.13.0"}, ["Python 3.12.4, then 3.13.0"]),
        ({"filter_search": "1.0.0"}, ["filter-search 0.9.0, then 1.0.0"]),
        ({"commit": "fedcba9876543210"}, ["commit 0123456789+, then fedcba9876"]),
        ({"commit": None}, ["commit 0123456789+, then unknown"]),
        ({"packages": {"torch": "2.14.0"}}, ["numpy 2.3.1, then unknown"]),
        ({"packages": PACKAGES | {"scipy": "1.18.0"}}, ["scipy unknown, then 1.18.0"]),
        (
            {"device": "NVIDIA A100", "packages": {"torch": "2.15.0", "numpy": "2.4.0"}},
            ["device NVIDIA H200, then NVIDIA A100", "torch 2.14.0, then 2.15.0", "numpy 2.3.1, then 2.4.0"],
        ),
    ],
)
def test_what_changed_has_another_digest_and_is_said(change, words):
    other = replace(MACHINE, **change)
    assert other.digest() != MACHINE.digest()
    assert differences(MACHINE, other) == words


def test_equal_machines_do_not_differ():
    other = replace(MACHINE, packages=dict(reversed(PACKAGES.items())))
    assert other.digest() == MACHINE.digest()
    assert differences(MACHINE, other) == []


def test_a_study_keeps_what_each_digest_means(tmp_path):
    config = StudyConfig()
    storage = create(tmp_path, config, ["maximize"], "data")
    assert noted(storage) == {}
    other = replace(MACHINE, device="NVIDIA A100", commit=None)
    digests = [note(storage, each) for each in (MACHINE, other, MACHINE)]
    assert digests == [MACHINE.digest(), other.digest(), MACHINE.digest()]
    again = load(tmp_path, config.name)
    assert machines(again) == {MACHINE.digest(): MACHINE, other.digest(): other}
    assert noted(again)["machines"][other.digest()]["device"] == "NVIDIA A100"


def test_machines_noted_at_once_do_not_overwrite_each_other(tmp_path):
    config = StudyConfig()
    first, second = create(tmp_path, config, ["maximize"], "data"), load(tmp_path, config.name)
    other = replace(MACHINE, python="3.13.0")
    assert machines(first) == machines(second) == {}
    note(first, MACHINE)
    note(second, other)
    assert machines(first) == {MACHINE.digest(): MACHINE, other.digest(): other}


@pytest.mark.parametrize("values", [None, 3, "text", [], {}, {"packages": 3}, {"python": ["x"], "commit": 4}])
def test_whatever_a_study_file_holds_is_some_machine(storage, values):
    storage.search.set_user_attr("machine:00000000", values)
    (machine,) = machines(storage).values()
    assert differences(machine, MACHINE)
    assert all(isinstance(each, str) for each in machine.facts().values())
