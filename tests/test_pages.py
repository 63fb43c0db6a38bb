import ast
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from search import pages, wording


def test_templates_are_filled_in_one_place_only():
    package = Path(pages.__file__).parent
    importers = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "jinja2"
    }
    assert importers == {"pages.py"}


def test_what_a_template_needs_must_be_given():
    with pytest.raises(UndefinedError):
        pages.fill("model_card.md", {"words": wording})


def test_pages_escape_and_sources_do_not():
    source = pages.fill(
        "model.py",
        {
            "schedule": "<b>",
            "source": "network = '<i>'",
            "image": "1x8x8",
            "classes": 2,
            "mean": [0.5],
            "deviation": [1.0],
            "needs": "PyTorch alone",
        },
    )
    assert "<b>" in source
    assert "network = '<i>'" in source
    assert source.endswith("\n")
