"""Fills the templates; the only place that says how.

Pages of HTML escape every value, so what a user wrote is text and never markup; sources and cards are plain text.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

_SCHEDULE = re.compile(r"[0-9]+(?:-[0-9]+)+")
_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=(?:%|B|KiB|MiB|GiB)(?![A-Za-z]))")


def fill(
    template: str, values: Mapping[str, object], filters: Mapping[str, Callable[..., str]] = MappingProxyType({})
) -> str:
    """A template of `templates/`, filled.

    Args:
        template: Its file name without `.jinja`.
        values: By the names the template has for them; one that is missing is an error.
        filters: Its own besides those every template has.
    """
    environment = _ENVIRONMENT.overlay()
    environment.filters = _ENVIRONMENT.filters | dict(filters)
    return environment.get_template(f"{template}.jinja").render(values)


def _keep_together(text: str) -> Markup:
    """HTML of a text, its schedules and numbers with their units kept from breaking."""
    unbroken = _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", str(escape(text)))
    return Markup(_SCHEDULE.sub(r'<span class="schedule">\g<0></span>', unbroken))


_ENVIRONMENT = Environment(
    loader=PackageLoader("search"),
    autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["keep_together"] = _keep_together
