"""How many filters should each stage of a CNN get, and is doubling them near-optimal?

filter-search answers by experiment. The file names tell a candidate's life: `schedule`, `rules` and `space` say what
may be tried, `networks` and `pricing` what it is and costs, `training` scores it, `study` and `confirm` decide
what is trained, `verdict` what follows from it, `report` and `export` what people take away.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["load_model"]

_LAZY = {"load_model": "search.exported"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 # whatever the name stands for
    """What is public, imported when first asked for: torch takes seconds, and `--help` does not need it."""
    if name not in _LAZY:
        msg = f"module 'search' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_LAZY[name]), name)
