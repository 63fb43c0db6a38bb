import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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


def test_pages_escape_and_texts_do_not():
    page = pages.fill("study.html", {"question": "<b>", "answer": "", "uses": []})
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    sizes = SimpleNamespace(training=2, validation=1)
    provenance = SimpleNamespace(
        schedule="4-8", data=SimpleNamespace(name="<b>"), sizes=sizes, config=SimpleNamespace(name="<i>"), seed=3
    )
    artifact = SimpleNamespace(accuracy=SimpleNamespace(mean=0.9, low=0.8, high=1.0), correct=np.array([True]))
    given = {"provenance": provenance, "artifact": artifact, "epochs": 2, "score": "accuracy", "loading": "<u>"}
    card = pages.fill("trained_card.md", given | {"words": wording})
    assert all(each in card for each in ("<b>", "<i>", "<u>"))
    assert card.endswith("\n")
