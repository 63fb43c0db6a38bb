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
