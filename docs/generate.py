"""Writes the reference pages that the code itself can tell: configuration and commands.

They are kept in the repository, so that they can be read without a build; a test compares them with the code. Every
build writes them anew. Run it by itself with `python docs/generate.py`.
"""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import typer

from search import cli, configfile
from search.configfile import Schema
from search.plainyaml import flow
from search.section import OPERATIONAL

_CONFIGURATION = """\
# Configuration

Every key of a configuration file. This page is written from the types that check your file, so it cannot differ from
them. Every key may be left out: then its default holds. `filter-search init` writes a file with all of them, and a
schema by which editors complete keys and mark mistakes.

On the command line `--set` changes one value, list entries by their number from 0:

    --set confirm.margin=0.01 --set filters.stages.0.high=32

Keys decide results and are fixed once a study has begun, but for those under [compute](#compute) and those marked as
operational: where the data lie, for instance, may differ from machine to machine. Ranges of numbers include their ends
unless they say above or below.
"""
_COMMANDS = """\
# Commands

`filter-search VERB ...`, which is also `python -m search VERB ...`. This page is written from the command itself.
Results go to standard output, everything else to standard error; `NO_COLOR=1` leaves colours out.

`filter-search --debug VERB ...` shows the traceback of an error. `filter-search VERB --help` says what is below.
"""


def write(docs: Path) -> None:
    """Write the generated pages below `docs`, where they differ from what is there."""
    for name, content in (("configuration", configuration()), ("commands", commands())):
        path = docs / "reference" / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def configuration() -> str:
    """The page on the configuration: a section for each section, a heading for each key."""
    root = configfile.schema()
    top = {name: field for name, field in root["properties"].items() if not _parts(field, root)}
    sections = {name: field for name, field in root["properties"].items() if name not in top}
    lines = [_CONFIGURATION, "## The study\n"]
    for name, field in top.items():
        lines += _key(name, field, root)
    for name, field in sections.items():
        lines += _section(name, field, root)
    return "\n".join(lines).rstrip() + "\n"


def _section(path: str, field: Schema, root: Schema) -> Iterator[str]:
    """The lines of a section, its own keys first, then the sections in it."""
    yield f"## {path}\n"
    resolved = configfile.resolve(field, root)
    listed = resolved.get("type") == "array"
    said = field.get("description") or resolved["description"]
    if not listed and field.get("default", {}) is None:
        said += " Left out unless you write it."
    yield f"{said}{' Each entry has the keys below.' * listed}\n"
    if listed:
        yield from _facts(field, root)
    parts = _parts(field, root)
    for name, part in parts.items():
        if not _parts(part, root):
            yield from _key(f"{path}.{'N.' * listed}{name}", part, root)
    for name, part in parts.items():
        if _parts(part, root):
            yield from _section(f"{path}.{name}", part, root)


def _key(path: str, field: Schema, root: Schema) -> Iterator[str]:
    yield f"### {path}\n"
    yield f"{_escaped(field['description'])}\n"
    yield from _facts(field, root)


def _facts(field: Schema, root: Schema) -> Iterator[str]:
    yield f"- Allowed: {_escaped(configfile.allowed(field, root))}"
    yield f"- Default: `{flow(field['default'])}`"
    if OPERATIONAL in field:
        yield "- Operational: may differ on a resume"
    yield ""


def _parts(field: Schema, root: Schema) -> dict[str, Schema]:
    """The keys of a section, or of the entries of a list of sections; none for anything else."""
    resolved = configfile.resolve(field, root)
    if "items" in resolved:
        resolved = configfile.resolve(resolved["items"], root)
    parts: dict[str, Schema] = resolved.get("properties", {})
    return parts


def _escaped(text: str) -> str:
    """Text that Markdown would take for markup, outside of code; options as code."""
    text = re.sub(r"(?<![`\w-])--[a-z-]+", r"`\g<0>`", text)
    return re.sub(r"(`[^`]*`)|([*_<>\[\]])", lambda match: match[1] or f"\\{match[2]}", text)


def commands() -> str:
    """The page on the command: a section for each verb."""
    command: Any = typer.main.get_command(cli.app)
    callbacks = {each.callback.__name__: each.callback for each in cli.app.registered_commands if each.callback}
    lines = [_COMMANDS]
    for name, verb in command.commands.items():
        if not verb.hidden:
            lines += _verb(name, verb, get_type_hints(callbacks[name]))
    lines += ["## Exit codes\n", f"{command.epilog.partition(': ')[2].capitalize()}"]
    return "\n".join([*lines, "[Troubleshooting](../troubleshooting.md) shows what lies behind each.\n"])


def _verb(name: str, verb: Any, hints: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 # typer keeps these types
    arguments = [each for each in verb.params if each.param_type_name == "argument"]
    options = [each for each in verb.params if each.param_type_name == "option"]
    usage = ["filter-search", name, *(each.metavar for each in arguments), *["[OPTIONS]"] * bool(options)]
    yield f"## {name}\n"
    yield f"```text\n{' '.join(usage)}\n```\n"
    for paragraph in verb.help.split("\n\n"):
        text = " ".join(paragraph.split())
        example = text.removeprefix("Example: ")
        yield f"Example: `{example}`\n" if example != text else f"{_escaped(text)}\n"
    for each in arguments:
        yield f"- `{each.metavar}`: {_escaped(each.help)}"
    for each in options:
        yield _option(each, hints[each.name])
    yield ""


def _option(option: Any, hint: Any) -> str:  # noqa: ANN401 # see _verb
    takes = "" if option.is_flag else f" {option.metavar or _word(hint)}"
    default = getattr(option.default, "value", option.default)
    shown = f" Default: `{default}`." if default not in (None, False) else ""
    return f"- `{option.opts[0]}{takes}`: {_escaped(option.help)}{shown}"


def _word(hint: Any) -> str:  # noqa: ANN401 # a type, or several joined
    """What stands for a value: the words it may be, or N, or TEXT."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    if isinstance(kinds[0], type) and issubclass(kinds[0], Enum):
        return "|".join(each.value for each in kinds[0])
    return "N" if kinds[0] in (int, float) else "TEXT"


if __name__ == "__main__":
    write(Path(__file__).parent)
