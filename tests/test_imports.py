import sys

import pytest

from search.errors import ConfigError
from search.imports import import_function


@pytest.fixture
def module(monkeypatch, tmp_path):
    """A module in the current folder, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_code.py").write_text("number = 3\ndef double(x):\n    return 2 * x\n")
    (tmp_path / "own_damage.py").write_text("1 / 0\n")
    yield
    for name in ("own_code", "own_damage"):
        sys.modules.pop(name, None)


def test_a_function_is_found_in_the_folder_the_command_runs_in(module):
    assert import_function("own_code:double", "data.factory")(4) == 8


def test_a_function_is_found_in_an_installed_package():
    assert import_function("os.path:basename", "data.factory")("a/b") == "b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("own_code", "data.factory is 'own_code'; write it package.module:function"),
        ("own_code:", "write it package.module:function"),
        (":double", "write it package.module:function"),
        ("../own_code:double", "write it package.module:function"),
        ("own_cod:double", r"importing own_cod failed \(ModuleNotFoundError: .*; mend that, or run where own_cod can"),
        ("own_damage:double", r"importing own_damage failed \(ZeroDivisionError: division by zero\)"),
        ("own_code:triple", r"own_code \(.*own_code.py\) has no triple; name a function it defines"),
        ("own_code:number", "own_code:number is a int, which cannot be called; name a function"),
    ],
)
def test_what_cannot_be_called_is_refused(module, text, says):
    with pytest.raises(ConfigError, match=says):
        import_function(text, "data.factory")
