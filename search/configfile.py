"""Configuration files: YAML in, YAML out, and what to tell someone whose file is wrong.

Owns reading, `--set`, the resolved file, the commented template and the JSON schema. What is allowed is read off the
models in `config`, so messages, template and schema cannot drift from them. Knows nothing of torch or storage.
"""

import difflib
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.config import StudyConfig
from search.errors import ConfigError
from search.folder import write_whole
from search.memoryshare import DeviceMemory, in_bytes
from search.plainyaml import dump, flow, load
from search.section import overlaid, semantic_part

LARGEST_FILE = 256 * 1024
_MOST_PROBLEMS = 5
_LONGEST_SHOWN = 60
_WIDTH = 118
_ABSENT = object()

Schema = dict[str, Any]


def read(path: Path, overrides: Sequence[str] = (), device_memory: DeviceMemory | None = None) -> StudyConfig:
    """The configuration in a YAML file, with overrides on top.

    Args:
        path: The file, of at most `LARGEST_FILE` bytes.
        overrides: `section.key=value` each, the value in YAML; list entries by number, `filters.stages.0.high=20`.
        device_memory: Bytes of a device named as `compute.device` has it. Budgets such as `memory <= 50 %` are worked
            out by it, so that the study's own configuration has bytes; without it they are refused.

    Raises:
        ConfigError: The file cannot be read, is no plain YAML, or breaks a rule of the models; so does an override.
            The message lists the first problems.
    """
    config = parse(in_bytes(load(_text(path), str(path)), device_memory), str(path))
    return override(config, overrides, device_memory) if overrides else config


def override(config: StudyConfig, overrides: Sequence[str], device_memory: DeviceMemory | None = None) -> StudyConfig:
    """A configuration with values replaced; see `read`."""
    tree = config.model_dump(mode="json")
    for each in overrides:
        _override(tree, each)
    return parse(in_bytes(tree, device_memory), " ".join(f"--set {each}" for each in overrides))


def parse(tree: Any, source: str) -> StudyConfig:  # noqa: ANN401 # whatever YAML holds
    """The configuration that plain data say, nothing converted silently.

    Args:
        tree: Sections and keys as a file would give them; what is left out has its default.
        source: Where they come from, for messages.

    Raises:
        ConfigError: A key, type or value that is not allowed. The message lists the first problems.
    """
    if not isinstance(tree, dict):
        came = "empty" if tree is None else _shown(tree)
        msg = f"{source} is {came}; a configuration is keys with values, and `filter-search init` writes one"
        raise ConfigError(msg)
    try:
        # By way of JSON: only there does pydantic's strict mode take a list for a tuple and a mapping for a section.
        return StudyConfig.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        problems = _problems(error)
    shown = problems[:_MOST_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    separator = "\n  " if len(shown) > 1 else " "
    raise ConfigError(separator.join([f"{source}:", *shown]))


def write(config: StudyConfig, path: Path) -> None:
    """Write the resolved configuration, every default spelt out; reading it gives an equal value.

    Raises:
        StorageError: The file cannot be written.
    """
    text = dump(config.model_dump(mode="json"))
    write_whole(path, f"# The resolved configuration; runs again as it stands.\n{text}")


def difference(kept: dict[str, Any], config: StudyConfig) -> list[str]:
    """What decides results and differs, one line a value: `confirm.margin: 0.005 -> 0.01`.

    Args:
        kept: What an earlier `StudyConfig.semantic` gave. Fields that came later count at their defaults.
        config: What to compare it with.
    """
    operational = StudyConfig.operational()
    # What is here stands in for what a study does not keep, such as a source's path, where the two have one source.
    here = config.model_dump(mode="json", include=operational, exclude_none=True)
    for whole in (overlaid(kept, here), kept):
        with suppress(ValidationError):  # else of a version whose fields were other ones
            kept = StudyConfig.model_validate(whole).semantic()
            break
    return list(_differences("", semantic_part(kept, operational), config.semantic()))


def refuse_another(made_by: dict[str, Any], config: StudyConfig, folder: Path) -> None:
    """Refuse a configuration other than the one a study was made by: its margin and budgets came first.

    Args:
        made_by: The semantic part of the study's own, as plain values that may be of another version.
        config: The configuration at hand.
        folder: The study folder, for the message.

    Raises:
        ConfigError: With the differences.
    """
    if lines := difference(made_by, config):
        shown = "\n  ".join(lines)
        msg = (
            f"the study in {folder} was made by another configuration (there -> here):\n  {shown}\n"
            "set these back, or give another folder with --out"
        )
        raise ConfigError(msg)


def schema() -> Schema:
    """The JSON schema of a configuration file, for editors."""
    root = StudyConfig.model_json_schema()
    for key, value in StudyConfig().model_dump(mode="json").items():
        root["properties"][key]["default"] = value
        section = resolve(root["properties"][key], root)
        for name, field in section.get("properties", {}).items() if value is not None else ():
            field["default"] = value[name]  # pydantic leaves rules and budgets there in their parts, not their text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | root


def template(config: StudyConfig, schema_name: str) -> str:
    """A commented configuration file with the values of `config`.

    Args:
        config: What the file says once read.
        schema_name: File name of the schema written beside it.
    """
    head = f"""\
        # yaml-language-server: $schema={schema_name}
        # A study of filter-search. Any line may be left out for its default; `filter-search check` shows what the
        # file comes to, `filter-search run` runs it.
        """
    root = schema()
    return textwrap.dedent(head) + "\n".join(_commented(root, config.model_dump(mode="json"), root, "")) + "\n"


def _text(path: Path) -> str:
    """The file's text.

    Raises:
        ConfigError: See `read`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        msg = f"{path} does not exist; name a configuration file, or write one with `filter-search init`"
        raise ConfigError(msg) from None
    except IsADirectoryError:
        msg = f"{path} is a folder; name the configuration file in it"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); name a readable configuration file"
        raise ConfigError(msg) from None
    if len(content) > LARGEST_FILE:
        msg = (
            f"{path} is larger than {LARGEST_FILE // 1024} KiB, the most a configuration may have; name a smaller file"
        )
        raise ConfigError(msg)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise ConfigError(msg) from None


def _override(tree: dict[str, Any], override: str) -> None:
    """Set one value in the tree.

    Raises:
        ConfigError: No `=`, no YAML, or a path through something that has no parts.
    """
    path, equals, text = override.partition("=")
    *sections, last = path.split(".")
    if not equals or not all((*sections, last)):
        msg = f"--set {override}: an override is written KEY=VALUE, such as confirm.margin=0.01"
        raise ConfigError(msg)
    value = load(text, f"--set {override}")
    place: Any = tree
    for number, part in enumerate(sections, start=1):
        key = _key(place, part, override)
        # An unknown key gets its section, for `parse` to name the nearest known one.
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict | list):
            done = ".".join(sections[:number])
            msg = f"--set {override}: {done} is {_shown(place)}, which has no parts; write {done}=VALUE"
            raise ConfigError(msg)
    place[_key(place, last, override)] = value


def _key(place: dict[str, Any] | list[Any], part: str, override: str) -> str | int:
    """The part of a dotted path as a key of the place it leads through.

    Raises:
        ConfigError: The place is a list without this entry.
    """
    if isinstance(place, dict):
        return part
    number = int(part) if part.isdecimal() and len(part) < 4 else len(place)
    if number >= len(place):
        msg = f"--set {override}: the list has no entry {part}; its {len(place)} entries are numbered from 0"
        raise ConfigError(msg)
    return number


def _problems(error: ValidationError) -> list[str]:
    """What is wrong, one sentence for each place."""
    root = StudyConfig.model_json_schema()
    found: dict[tuple[str | int, ...], str] = {}
    for detail in error.errors(include_url=False):
        path, fragment = _locate(detail["loc"], root)
        match detail["type"]:
            case "extra_forbidden":
                path = detail["loc"]
                found[path] = _unknown(path, fragment, root)
            case "value_error":
                found[path] = ": ".join([*filter(None, [_dotted(path)]), str(detail["ctx"]["error"])])
            case _ if path:
                came = _shown(detail["input"])
                found[path] = f"{_dotted(path)} is {came}; give it {allowed(fragment, root)}"
            case _:  # the one thing YAML can say and JSON cannot
                found[path] = "a text holds half of a surrogate pair; write the character itself"
    # A list with a bad entry is reported as too short besides.
    outer = {path[:length] for path in found for length in range(len(path))}
    return [text for path, text in found.items() if path not in outer]


def _locate(loc: tuple[str | int, ...], root: Schema) -> tuple[tuple[str | int, ...], Schema]:
    """The longest part of a pydantic location that the schema knows, and the schema there.

    What follows it is the name of a union's branch, or an unknown key.
    """
    path: tuple[str | int, ...] = ()
    fragment = root
    for part in loc:
        inner = fragment.get("items") if isinstance(part, int) else fragment.get("properties", {}).get(part)
        if inner is None:
            break
        path, fragment = (*path, part), resolve(inner, root)
    return path, fragment


def _unknown(path: tuple[str | int, ...], section: Schema, root: Schema) -> str:
    """What to say of an unknown key: the nearest known one, among its neighbours first, and all its neighbours."""
    known = {dotted: dotted.rpartition(".")[2] for dotted in _known(root, root, "")}
    neighbours = list(section["properties"])
    name, prefix = str(path[-1]), path[:-1]
    elsewhere = [dotted for dotted, last in known.items() if last == name]
    close = difflib.get_close_matches(name, neighbours, n=1)
    far = difflib.get_close_matches(name, known.values(), n=1)
    if close:
        nearest = [_dotted((*prefix, close[0]))]
    else:
        nearest = elsewhere or [dotted for dotted, last in known.items() if last in far]
    hint = f". Did you mean {nearest[0]}?" if nearest else ""
    where = f"in {_dotted(prefix)}" if prefix else "at the top"
    return f"{_cut(_dotted(path))} is no known key; known {where} are {', '.join(neighbours)}{hint}"


def _known(section: Schema, root: Schema, prefix: str) -> Iterator[str]:
    """Every key of the configuration with its dotted path; list entries are counted as one, number 0."""
    for name, field in section.get("properties", {}).items():
        yield f"{prefix}{name}"
        inner = resolve(field, root)
        yield from _known(inner, root, f"{prefix}{name}.")
        yield from _known(resolve(inner.get("items", {}), root), root, f"{prefix}{name}.0.")


def resolve(fragment: Schema, root: Schema) -> Schema:
    """What a reference, or one that null may stand for, leads to."""
    branches = fragment.get("anyOf", ())
    if [each for each in branches if "$ref" not in each] == [{"type": "null"}] and len(branches) == 2:
        fragment = branches[0]
    reference: str | None = fragment.get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if reference else fragment


def allowed(fragment: Schema, root: Schema) -> str:
    """What a schema allows, in words: `a number above 0 and below 0.5`."""
    if "anyOf" in fragment:
        return " or ".join(allowed(branch, root) for branch in fragment["anyOf"])
    fragment = resolve(fragment, root)
    match fragment:
        case {"const": word}:
            return str(word)
        case {"enum": [*words, last]}:
            return f"{', '.join(map(str, words))} or {last}"
        case {"properties": properties}:
            return f"a section with any of {', '.join(properties)}"
        case {"type": "array", "items": items}:
            lengths = _range(fragment, "{}Items").removeprefix("from ").removeprefix("of ")
            return f"a list{lengths and f' of {lengths}'}, each {allowed(items, root)}"
        case {"type": "string", "examples": [example, *_]}:
            return f"text such as '{example}'"
        case {"type": "string", "maxLength": length}:
            return f"text of at most {length} characters"
        case _:
            kinds = {"string": "text", "boolean": "true or false", "null": "null", "integer": "a whole number"}
            kind = kinds.get(fragment["type"], "a number")
            return f"{kind} {_range(fragment, '{}imum')}".rstrip()


def _range(fragment: Schema, key: str) -> str:
    """Limits in words, `from 1 to 16`; `key` says how the schema spells them, such as `{}imum`."""
    low, high = fragment.get(key.format("min")), fragment.get(key.format("max"))
    above, below = fragment.get("exclusiveMinimum"), fragment.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"from {low} to {high}"
    limits = {"of at least": low, "above": above, "at most": high, "below": below}
    return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)


def _commented(section: Schema, values: dict[str, Any], root: Schema, indent: str) -> Iterator[str]:
    """The lines of a section, every key under a comment of its meaning and range."""
    for name, field in section["properties"].items():
        inner, value = resolve(field, root), values[name]
        if not indent:
            yield ""
        if "properties" in inner and value is not None:
            yield from (*_comment(inner["description"], indent), f"{indent}{name}:")
            yield from _commented(inner, value, root, f"{indent}  ")
            continue
        yield from _comment(_meaning(field, root), indent)
        parts = inner if "properties" in inner else resolve(inner.get("items", {}), root)
        for part, entry in parts.get("properties", {}).items():
            yield from _comment(f"{part}: {_meaning(entry, root)}", indent, "  ")
        if isinstance(value, list) and value and not isinstance(value[0], int):
            yield from (f"{indent}{name}:", *(f"{indent}  - {flow(entry)}" for entry in value))
        else:
            yield f"{indent}{name}: {flow(value)}"


def _meaning(field: Schema, root: Schema) -> str:
    description = field.get("description") or resolve(field, root)["description"]
    return f"{description} Allowed: {allowed(field, root)}."


def _comment(text: str, indent: str, hang: str = "") -> list[str]:
    start = f"{indent}# {hang}"
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:  # noqa: ANN401 # plain data
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            yield from _differences(f"{path}.{key}".lstrip("."), old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and isinstance(old[0] if old else None, dict)
    ):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}.{number}", before, after)
    elif old != new:
        shown = ["nothing" if value is _ABSENT else flow(value) for value in (old, new)]
        yield f"{path}: {shown[0]} -> {shown[1]}"


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _shown(value: object) -> str:
    """A value as someone wrote it, cut where it runs on."""
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
