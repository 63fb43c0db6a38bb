"""The page for operators: what it says happens is tested where it says so, and its limits exist."""

import ast
import re

import pytest
from doc_pages import DOCS, ROOT

from search.config import ComputeConfig

PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r" \|(?: |$)", line.removeprefix("| "))]
    for line in PAGE.partition("\n| fault |")[2].splitlines()[2:]
    if line.startswith("| ")
]


def named(text):
    """The tests a text names, as file and function."""
    return re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)


def missing(file, test):
    """Whether there is no such test."""
    path = ROOT / "tests" / file
    functions = ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else ()
    return all(not isinstance(each, ast.FunctionDef) or each.name != test for each in functions)


@pytest.mark.parametrize(("fault", "tests"), [(row[0], row[2]) for row in ROWS])
def test_what_happens_is_tested_as_the_page_says(fault, tests):
    assert fault
    assert named(tests)
    assert not re.sub(r"`test_\w+\.py::test_\w+`", "", tests).strip(" ,|")
    assert [each for each in named(tests) if missing(*each)] == []


def test_a_test_that_is_none_would_be_noticed():
    assert len(ROWS) > 20
    assert missing("test_operations.py", "test_that_is_none")
    assert missing("test_that_is_none.py", "test_a_test_that_is_none_would_be_noticed")
    assert not missing("test_operations.py", "test_a_test_that_is_none_would_be_noticed")


def test_the_limits_named_exist():
    keys = set(re.findall(r"`compute\.(\w+)`", PAGE))
    assert keys
    assert keys <= set(ComputeConfig.model_fields)
