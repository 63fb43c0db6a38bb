"""YAML of plain data only, read and written alike.

Owns what YAML may hold here: mappings with text for keys, lists, text, numbers, booleans, null. Tags, anchors,
repeated keys, deep nesting and long documents are refused. Knows nothing of what the data mean.
"""

import re
from typing import Any

import yaml

from search.errors import ConfigError

LARGEST = 2**20
"""Most characters of a document."""
_DEEPEST = 16  # the configuration goes five deep
_NUMBER_START = [*"-+.0123456789"]
# The core types of YAML 1.2, as editors read them: `on` and `no` stay text, 010 is no octal, 1e-3 is a number. The
# limit on digits keeps conversion to int quick.
_PLAIN_SCALARS: tuple[tuple[str, str, list[str]], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]{0,39})", _NUMBER_START),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", _NUMBER_START),
    ("null", r"null|Null|NULL|~|", [*"nN~", ""]),
)


class _Loader(yaml.SafeLoader):
    """The safe loader less what a configuration has no use for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 # key or number
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:
            raise _refusal("anchors and aliases (& and *) are not allowed; write the value out", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"the tag {event.tag} is not allowed; remove it", event.start_mark)
        if self._depth == _DEEPEST:
            raise _refusal(f"more than {_DEEPEST} levels of nesting are not allowed; flatten it", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _refusal("a key that is no text is not allowed; rename it", key.start_mark)
            if key.value in lines:
                problem = f"key {key.value!r} stands on line {lines[key.value]} already; keep one of the two"
                raise _refusal(problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would take for something else, and writes no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        """Line breaks and the like as escapes: the emitter's other styles lose some, such as NEL."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _PLAIN_SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def load(text: str, source: str) -> Any:  # noqa: ANN401 # whatever plain data there is
    """The plain data of one YAML document.

    Args:
        text: The document.
        source: What to call it in messages.

    Raises:
        ConfigError: The text is too long, no YAML, or more than plain data; with the line.
    """
    if len(text) > LARGEST:
        msg = f"{source} has {len(text):,} characters; at most {LARGEST:,} are read: shorten it"
        raise ConfigError(msg)
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        msg = f"{source}{where}: {error.problem or error.context}"
        raise ConfigError(msg) from None
    except yaml.reader.ReaderError as error:
        character = chr(int(error.character))
        msg = f"{source}: character {error.position + 1} ({character!a}) is not allowed in YAML; remove it"
        raise ConfigError(msg) from None


def dump(data: object) -> str:
    """Plain data as a YAML document."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118)


def flow(data: object) -> str:
    """Plain data as YAML on one line."""
    text = yaml.dump(data, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**31)
    return text.removesuffix("...\n").strip()


def _refusal(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
