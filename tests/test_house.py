import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import search

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "search").rglob("*.py"))
HEAVY = ("torch", "torchvision", "pytorch_lightning", "optuna")

# What runs code found in the data it reads, or hands text to a shell.
UNSAFE = re.compile(
    r"(yaml\.(load|load_all|unsafe_\w+|full_\w+))|(pickle|cPickle|dill|cloudpickle|marshal|shelve)\b.*|eval|exec|os\.system"
)


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
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords} if isinstance(node, ast.Call) else {}
        if name in ("torch.load", "yaml.load") and not isinstance(node, ast.Call):
            yield name
        elif name == "torch.load":
            if keywords.get("weights_only") != "True":
                yield name
        elif UNSAFE.fullmatch(name) or keywords.get("shell", "False") != "False":
            yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_runs_code_found_in_data(path):
    assert not list(unsafe_calls(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "yaml.full_load(text)",
        "from yaml import load",
        "import pickle",
        "from pickle import loads",
        "import cloudpickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
    ],
)
def test_such_a_source_would_be_caught(source):
    assert list(unsafe_calls(source))


@pytest.mark.parametrize("source", ["torch.load(path, weights_only=True)", "yaml.safe_load(text)", "model.eval()"])
def test_safe_sources_pass(source):
    assert not list(unsafe_calls(source))


@pytest.mark.parametrize("module", ["search", "search.configfile", "search.rules", "search.verdict", "search.cli"])
def test_light_modules_leave_the_heavy_libraries_alone(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_the_version_is_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", search.__version__)
    assert version("filter-search") == search.__version__


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_module_opens_with_its_docstring_and_stays_short(path):
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source))
    assert len(source.splitlines()) <= 400


def test_the_makefile_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    assert set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)) == set(phony)


def test_the_makefile_lists_its_commands():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^make search +Run the digits study", said, re.M)
