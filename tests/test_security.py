"""No source runs code found in the data it reads, or hands text to a shell; and SECURITY.md names tests there are."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "search").rglob("*.py"), *(ROOT / "tests" / "benchmarks").rglob("*.py")])
PICKLES = r"(_?pickle|cPickle|dill|joblib|cloudpickle|marshal|shelve|jsonpickle|(pandas|pd)\.read_pickle)\b.*"
# By which Optuna itself would unpickle what a storage holds.
OPTUNA = r"(.*\.)?(CmaEsSampler|Journal\w+)"
UNSAFE = re.compile(
    rf"{PICKLES}|{OPTUNA}|eval|exec|os\.(system|popen|spawn\w+)|subprocess\.get(status)?output|yaml\.\w*load\w*"
)
HAS_AN_ANSWER = {
    "torch.load": ("weights_only", "True", None),
    "np.load": ("allow_pickle", "False", "False"),
    "numpy.load": ("allow_pickle", "False", "False"),
}
"""A keyword, the only value it may have, and the value it has where it is not given."""
LOADS_CHECKPOINTS = re.compile(r".*\.(load_from_checkpoint|fit|validate|test|predict)")


def calls(source):
    """Every call in a source with its dotted name, and every import of a module by its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def unsafe_calls(source):
    """What a source does that could run code found in data, or go through a shell."""
    for name, node in calls(source):
        is_call = isinstance(node, ast.Call)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords} if is_call else {}
        if name in HAS_AN_ANSWER:
            keyword, allowed, default = HAS_AN_ANSWER[name]
            if not is_call or keywords.get(keyword, default) != allowed:
                yield name
        elif (
            UNSAFE.fullmatch(name)
            or keywords.get("shell", "False") != "False"
            or (
                LOADS_CHECKPOINTS.fullmatch(name)
                and "ckpt_path" in keywords
                and keywords.get("weights_only") != "True"
            )
        ):
            yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_code_found_in_data(path):
    assert not list(unsafe_calls(path.read_text(encoding="utf-8")))


def test_yaml_is_read_by_one_module():
    readers = {path.stem for path in SOURCES for name, _ in calls(path.read_text("utf-8")) if name.startswith("yaml")}
    assert readers == {"plainyaml"}


@pytest.mark.parametrize(
    "source",
    [
        "yaml.load(text)",
        "yaml.safe_load(text)",
        "yaml.unsafe_load(text)",
        "from yaml import load",
        "import pickle",
        "from pickle import loads",
        "import cloudpickle",
        "import joblib",
        "import dill",
        "import marshal",
        "import shelve",
        "pd.read_pickle(path)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=chosen)",
        "from numpy import load",
        "trainer.fit(module, ckpt_path=path)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.getoutput(text)",
        "os.system(text)",
        "os.popen(text)",
        "optuna.samplers.CmaEsSampler()",
        "from optuna.storages import JournalStorage",
    ],
)
def test_such_a_source_would_be_caught(source):
    assert list(unsafe_calls(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "trainer.fit(module, ckpt_path=path, weights_only=True)",
        "trainer.fit(module)",
        "model.eval()",
        "subprocess.run([text])",
    ],
)
def test_safe_sources_pass(source):
    assert not list(unsafe_calls(source))


AUDIT = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --output ] && answer=$2; shift; done
{}
"""
ANSWERS = {
    "a flaw": (
        {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
        1,
        "a 1: PYSEC-1, ",
    ),
    "none": ({"name": "a", "version": "1", "vulns": []}, 0, "audited 1 of 1 packages"),
    "not known": ({"name": "a", "skip_reason": "Dependency not found on PyPI"}, 0, "NOT audited"),
    "out of reach": (None, 0, "NOT audited: the service that knows vulnerabilities could not be asked (no route)"),
}


@pytest.mark.parametrize(("said", "code", "tells"), ANSWERS.values(), ids=ANSWERS)
def test_an_audit_fails_on_a_known_flaw_and_not_on_a_service_out_of_reach(tmp_path, said, code, tells):
    answer = f"echo '{json.dumps({'dependencies': [said]})}' > $answer" if said else "echo no route >&2; exit 1"
    tool = tmp_path / "build" / "audit" / "bin" / "pip-audit"
    tool.parent.mkdir(parents=True)
    tool.write_text(AUDIT.format(answer))
    tool.chmod(0o755)
    command = [sys.executable, ROOT / ".ci" / "audit.py", "site-packages"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, ended.stdout.count("\n")) == (code, "", 1)
    assert ended.stdout.startswith(tells)


def test_every_threat_has_its_test():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\|$", page, re.M)[2:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for module, function in named:
            assert f"\ndef {function}(" in (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"), row
