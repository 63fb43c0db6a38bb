import ast
import errno
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from search import configfile
from search.config import ConfirmConfig, StageConfig, StudyConfig
from search.errors import ConfigError, StorageError

ROOT = Path(__file__).parents[1]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.fixture
def read(tmp_path):
    """Reads a configuration from text or bytes; overrides follow."""

    def read_from(content, *overrides):
        path = tmp_path / "study.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return configfile.read(path, overrides)

    return read_from


@pytest.fixture
def refusal(read):
    """The message with which a configuration is refused."""

    def refusal_of(content, *overrides):
        with pytest.raises(ConfigError) as refused:
            read(content, *overrides)
        return str(refused.value)

    return refusal_of


def test_what_is_left_out_has_its_default(read):
    assert read("{}") == StudyConfig()
    assert read("confirm: {margin: 0.01}").confirm == ConfirmConfig(margin=0.01)


def test_the_shipped_study_is_read():
    config = configfile.read(ROOT / "configs" / "digits.yaml")
    assert config.name == "digits"
    assert [budget.cost for budget in config.budgets] == ["params", "macs", "activations", "memory"]
    assert config.filters.ranges() == [(2, 64)] * 3


@given(text, st.floats(1e-12, 0.49), st.lists(st.sampled_from(["uniform", "geometric(1.1)", "hump"]), unique=True))
def test_what_is_written_reads_back(tmp_path_factory, question, margin, compared):
    config = StudyConfig.model_validate(
        {"question": question, "confirm": {"margin": margin}, "rules": {"compared": compared}}
    )
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    configfile.write(config, path)
    assert configfile.read(path) == config
    path.write_text(configfile.template(config, "schema.json"), encoding="utf-8")
    assert configfile.read(path) == config


@pytest.mark.parametrize(
    "name", ["1e5", "0x10", "010", "on", "no", "null", "true", "1", "1.5", "2026-11-01", "1_0", "y"]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path, name):
    configfile.write(StudyConfig(name=name), tmp_path / "config.yaml")
    assert configfile.read(tmp_path / "config.yaml").name == name


def test_writing_where_one_cannot_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot be written"):
        configfile.write(StudyConfig(), tmp_path / "missing" / "config.yaml")


def test_a_configuration_is_replaced_whole_or_left_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    configfile.write(StudyConfig(name="before"), path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        configfile.write(StudyConfig(name="after"), path)
    assert configfile.read(path).name == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_study_of_another_version_is_refused_with_what_it_had_and_lacks(tmp_path):
    made_by = StudyConfig().semantic()
    configfile.refuse_another(made_by, StudyConfig(), tmp_path)
    made_by["search"]["temperature"] = 3
    del made_by["confirm"]["challengers"]
    with pytest.raises(ConfigError, match="was made by another configuration") as refused:
        configfile.refuse_another(made_by, StudyConfig(), tmp_path)
    assert "\n  search.temperature: 3 -> nothing\n" in str(refused.value)
    assert "\n  confirm.challengers: nothing -> 4\n" in str(refused.value)


NPZ = {"data": {"source": "npz", "path": "/there/images.npz", "groups": "/there/groups.csv"}}


@pytest.mark.parametrize("keeps", [StudyConfig.semantic, partial(StudyConfig.model_dump, mode="json")])
def test_data_may_lie_elsewhere_when_a_study_is_resumed(tmp_path, keeps):
    made_by = keeps(StudyConfig.model_validate(NPZ))
    here = {"data": NPZ["data"] | {"path": "here.npz", "groups": None}}
    configfile.refuse_another(made_by, StudyConfig.model_validate(here), tmp_path)
    with pytest.raises(ConfigError, match=r"\(there -> here\):\n  confirm.margin: 0.005 -> 0.01\nset these back"):
        configfile.refuse_another(made_by, StudyConfig.model_validate(here | {"confirm": {"margin": 0.01}}), tmp_path)


@pytest.mark.parametrize("keeps", [StudyConfig.semantic, partial(StudyConfig.model_dump, mode="json")])
@pytest.mark.parametrize(
    ("there", "here", "lines"),
    [
        (NPZ, {}, ["data.source: npz -> digits"]),
        ({}, NPZ, ["data.source: digits -> npz"]),
        (
            {"table": {"path": "a.csv", "noise_sd": 0.1}},
            {"table": {"path": "b.csv", "noise_sd": 0.2, "seconds_per_run": 3}},
            ["table.noise_sd: 0.1 -> 0.2"],
        ),
    ],
)
def test_only_what_decides_results_makes_another_configuration(keeps, there, here, lines):
    made_by = keeps(StudyConfig.model_validate(there))
    assert configfile.difference(made_by, StudyConfig.model_validate(here)) == lines


def test_a_table_for_images_is_another_configuration():
    table = StudyConfig.model_validate({"table": {"path": "a.csv", "noise_sd": 0.1}})
    (line,) = configfile.difference(StudyConfig().semantic(), table)
    assert line.startswith("table: null -> {columns: ")
    (line,) = configfile.difference(table.semantic(), StudyConfig())
    assert line.endswith("-> null")


def test_the_template_says_every_default_and_names_its_schema(read):
    template = configfile.template(StudyConfig(), "here.schema.json")
    assert template.startswith("# yaml-language-server: $schema=here.schema.json\n")
    assert read(template) == StudyConfig()
    assert max(map(len, template.splitlines())) <= 120
    keys = [line.partition(":")[0].strip() for line in template.splitlines() if not line.strip().startswith("#")]
    assert set(keys) >= field_names(StudyConfig)


def test_the_template_comments_every_key_with_its_range():
    lines = configfile.template(StudyConfig(), "x").splitlines()
    before = lines[lines.index("  margin: 0.005") - 1]
    assert before == (
        "  # Regret (a fraction) one is willing to call nothing. Allowed: a number above 0 and below 0.5."
    )


def test_the_schema_is_json_and_knows_the_defaults():
    schema = json.loads(json.dumps(configfile.schema()))
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["RulesConfig"]["properties"]["judged"]["default"] == ["doubling"]
    assert schema["properties"]["budgets"]["default"][0] == "params <= 1500"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("confirm: {margn: 1}", "confirm.margn is no known key; known in confirm are margin, "),
        ("confirm: {margn: 1}", "Did you mean confirm.margin?"),
        ("margin: 1", "margin is no known key; known at the top are name, "),
        ("margin: 1", "Did you mean confirm.margin?"),
        ("marginn: 1", "Did you mean confirm.margin?"),
        ("filters: {stages: [{hihg: 3}]}", "Did you mean filters.stages.0.high?"),
        ("confirm: {margin: big}", 'confirm.margin is "big"; give it a number above 0 and below 0.5'),
        ("confirm: {margin: 0.5}", "confirm.margin is 0.5; give it a number above 0 and below 0.5"),
        ("confirm: {margin: .nan}", 'confirm.margin is ".nan"; give it a number'),
        ("confirm: {margin: 1e999}", "confirm.margin is Infinity; give it a number"),
        ("seed: true", "seed is true; give it a whole number of at least 0 and below 4294967296"),
        ("seed: '3'", 'seed is "3"; give it a whole number'),
        ("seed: 1.0", "seed is 1.0; give it a whole number"),
        ("seed: 010", 'seed is "010"; give it a whole number'),
        ("seed: " + "9" * 9999, "9...; give it a whole number"),
        ("data: {redraw_validation: yes}", 'data.redraw_validation is "yes"; give it true or false'),
        (
            "data: {classes: [a, 1]}",
            'data.classes.0 is "a"; give it a whole number of at least 0 or a list of at least',
        ),
        ("data: {classes: [[0, -1], 1]}", "data.classes.0 is -1; give it a whole number of at least 0"),
        ("name: 3", "name is 3; give it text"),
        ("training: 3", "training is 3; give it a section with any of epochs, "),
        ("training:", "training is null; give it a section"),
        ("budgets: params <= 3", 'budgets is "params <= 3"; give it a list of 1 to 32, each text such as'),
        ("budgets: []", "budgets is []; give it a list of 1 to 32"),
        ("budgets: [params <= 0]", "budgets.0: 'params <= 0' allows nothing"),
        ("rules: {judged: [tripling]}", "rules.judged.0: 'tripling' is no rule"),
        ("search: {objective: best}", 'search.objective is "best"; give it constrained, weighted or pareto'),
        ("compute: {workers: many}", 'compute.workers is "many"; give it a whole number from 1 to 1024 or auto'),
        (
            "filters: {stages: [{high: x}]}",
            'stages.0.high is "x"; give it a whole number of at least 1 or combinations',
        ),
        ("filters: {stages: [{low: 9, high: 3}]}", "filters: stage 1 has low 9 above high 3"),
        ("name: ../x", "name '../x' must be"),
        ('question: "\\uD800"', "half of a surrogate pair"),
        ("", "is empty; a configuration is keys with values"),
        ("- 1", "is [1]; a configuration is keys with values"),
        ("seed: 1\nname: a\nseed: 2", "line 3, column 1: key 'seed' stands on line 1 already"),
        ("confirm:\n  margin: 0.1\n  margin: 0.2", "line 3, column 3: key 'margin' stands on line 2"),
        ("name: !!python/object/apply:os.system [x]", "line 1, column 7: the tag tag:yaml.org,2002:python/"),
        ("name: !!str 3", "the tag tag:yaml.org,2002:str is not allowed; remove it"),
        ("a: &x 1\nb: *x", "line 1, column 4: anchors and aliases"),
        ("<<: {seed: 1}", "<< is no known key"),
        ("1: 2", "a key that is no text"),
        ("? [a, b]\n: 2", "a key that is no text"),
        ("a: " + "[" * 50_000, "more than 16 levels of nesting"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("a: \a", "character 4 ('\\x07') is not allowed in YAML"),
        (b"name: \xff", "is not UTF-8 text (byte 6)"),
        ("#" * (configfile.LARGEST_FILE + 1), "is larger than 256 KiB"),
    ],
)
def test_one_message_says_what_came_and_what_is_allowed(refusal, tmp_path, content, message):
    said = refusal(content)
    assert message in said
    assert said.startswith(str(tmp_path / "study.yaml"))


def test_several_problems_are_one_message_of_five(refusal):
    problems = "\n".join(f"x{number}: 1" for number in range(7))
    lines = refusal(problems).splitlines()
    assert len(lines) == 7
    assert lines[1].startswith("  x0 is no known key")
    assert lines[-1] == "  and 2 more"


def test_a_bad_entry_is_reported_once(refusal):
    said = refusal("budgets: [params 5]")
    assert said.count("budgets") == 1


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(
        ConfigError, match="does not exist; name a configuration file, or write one with `filter-search"
    ):
        configfile.read(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="is a folder; name the configuration file in it"):
        configfile.read(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        configfile.read(tmp_path / ("x" * 300))


def test_a_byte_order_mark_is_no_content(read):
    assert read("\ufeffseed: 3").seed == 3


def test_numbers_are_those_of_yaml_1_2(read):
    config = read("training: {learning_rate: 1e-3, weight_decay: 0}\nseed: 1_000\nquestion: no")
    assert config.training.learning_rate == 0.001
    assert config.seed == 1000
    assert config.question == "no"


def test_overrides_lie_on_top(read):
    config = read(
        "confirm: {margin: 0.01}",
        "confirm.margin=0.02",
        "filters.stages.1.high=20",
        "budgets=[params <= 3k, macs <= 4]",
        "question=a = b",
        "compute.max_wall_hours=0.5",
    )
    assert config.confirm.margin == 0.02
    assert config.filters.stages == (StageConfig(), StageConfig(high=20), StageConfig())
    assert [str(budget) for budget in config.budgets] == ["params <= 3000", "macs <= 4"]
    assert config.question == "a = b"
    assert config.compute.max_wall_hours == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("confirm.margn=2", "--set confirm.margn=2: confirm.margn is no known key"),
        ("confrim.margin=2", "Did you mean confirm?"),
        ("confirm.margin=big", 'confirm.margin is "big"; give it a number above 0 and below 0.5'),
        ("confirm.margin", "an override is written KEY=VALUE, such as confirm.margin=0.01"),
        ("=3", "an override is written KEY=VALUE"),
        ("confirm..margin=3", "an override is written KEY=VALUE"),
        ("confirm.margin.x=3", "confirm.margin is 0.005, which has no parts; write confirm.margin=VALUE"),
        ("filters.stages.3.low=3", "the list has no entry 3; its 3 entries are numbered from 0"),
        ("filters.stages.-1.low=3", "the list has no entry -1"),
        ("filters.stages.x=3", "the list has no entry x"),
        ("budgets.99999999=3", "the list has no entry 99999999"),
        ("compute=", "compute is null; give it a section"),
        ("budgets=[1", "--set budgets=[1, line 1, column 3: expected ',' or ']'"),
        ("name=!!str x", "the tag"),
    ],
)
def test_an_override_is_refused_as_a_file_is(refusal, override, message):
    assert message in refusal("{}", override)


def test_difference_names_what_decides_results():
    old = StudyConfig()
    new = StudyConfig.model_validate(
        {
            "confirm": {"margin": 0.01, "looks": [16, 32]},
            "filters": {"stages": [{}, {"high": 20}, {}]},
            "compute": {"workers": 3},
        }
    )
    assert configfile.difference(old.semantic(), new) == [
        "filters.stages.1.high: 64 -> 20",
        "confirm.margin: 0.005 -> 0.01",
        "confirm.looks: [16, 32, 64, 128] -> [16, 32]",
    ]
    assert configfile.difference(old.semantic(), old) == []


def test_a_field_that_came_later_counts_at_its_default():
    kept = StudyConfig().semantic()
    del kept["confirm"]["margin"]
    assert configfile.difference(kept, StudyConfig()) == []


def test_a_field_that_is_no_more_differs():
    kept = StudyConfig().semantic()
    kept["search"]["pruner"] = "median"
    assert configfile.difference(kept, StudyConfig()) == ["search.pruner: median -> nothing"]


def test_difference_shows_another_number_of_stages_whole():
    new = StudyConfig.model_validate({"filters": {"stages": [{"low": 3}]}})
    (line,) = configfile.difference(StudyConfig().semantic(), new)
    assert line.startswith("filters.stages: [{low: 2, ")
    assert line.endswith("-> [{low: 3, high: 64, scale: log}]")


def field_names(model: type[BaseModel]) -> set[str]:
    names = set()
    for name, field in model.model_fields.items():
        names.add(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= field_names(field.annotation)
    return names


def attributes_read(folder: Path) -> Iterator[str]:
    """Every attribute that the package reads, outside the modules that only define and carry the configuration."""
    for path in folder.rglob("*.py"):
        if path.name in ("config.py", "configfile.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                yield node.attr


def test_every_field_is_read():
    unread = (field_names(StudyConfig) | field_names(StageConfig)) - set(attributes_read(ROOT / "search"))
    assert not unread


def test_an_override_reaches_into_a_section_that_was_null(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("table: {surface: {best_ratio: 1.0}, images: {}, noise_sd: 0.0}")
    config = configfile.read(path, ["table.surface.strength=0.5", "table.noise_spread=2.0"])
    assert (config.table.surface.strength, config.table.surface.best_ratio) == (0.5, 1.0)
    path.write_text("name: bare")
    config = configfile.read(path, ["table={path: a.csv, noise_sd: 0.0}"])
    assert config == StudyConfig.model_validate({"name": "bare", "table": {"path": "a.csv", "noise_sd": 0.0}})
    with pytest.raises(ConfigError, match=r"table.pth is no known key.*Did you mean table.path\?"):
        configfile.read(path, ["table.pth=a.csv"])
