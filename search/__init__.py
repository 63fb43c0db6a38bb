"""How many filters should each stage of a CNN get, and is doubling them near-optimal?

filter-search answers by experiment. The file names tell a candidate's life: `schedule`, `rules` and `space` say what
may be tried, `networks` and `pricing` what it is and costs, `training` scores it, `study` and `confirm` decide
what is trained, `verdict` what follows from it, `report` and `export` what people take away.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api import Search, Study, load_study
    from search.exported import load_model

__version__ = "0.1.0"
__all__ = ["Search", "Study", "load_model", "load_study"]

_HOMES = {"Search": "api", "Study": "api", "load_model": "exported", "load_study": "api"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 # whatever it names
    """The public names, loaded when first used: `filter-search --help` needs none of them."""
    if name in _HOMES:
        return getattr(import_module(f"search.{_HOMES[name]}"), name)
    msg = f"module 'search' has no attribute {name!r}; it offers {', '.join(__all__)}"
    raise AttributeError(msg)
