import hashlib
import json
from typing import Annotated, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from search.config import ComputeConfig, ConfirmConfig, FiltersConfig, RulesConfig, Section, StudyConfig
from search.cost import Budget
from search.dataconfig import DataConfig
from search.rules import Rule
from search.section import Operational, Role


def sections_in(annotation):
    """The sections an annotation names, entries of lists and what may be null too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def sections(model):
    """The model and every section below it."""
    yield model
    for field in model.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from sections(inner)


MODELS = [*sections(StudyConfig)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_has_a_description_and_a_default(model):
    for name, field in model.model_fields.items():
        assert not field.is_required(), name
        section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert field.annotation.__doc__ if section else field.description, name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_section_is_frozen_and_refuses_unknown_keys(model):
    assert issubclass(model, Section)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model.model_construct(), next(iter(model.model_fields)), None)
    with pytest.raises(ValidationError, match="not permitted"):
        model.model_validate({"unknown": 1})


def test_the_plain_form_reads_back():
    config = StudyConfig(
        budgets=(Budget("memory", 2**20),), rules=RulesConfig(judged=(Rule("geometric", 2.5),), compared=())
    )
    assert StudyConfig.model_validate_json(config.model_dump_json()) == config
    assert config.model_dump(mode="json")["budgets"] == ["memory <= 1048576"]
    assert config.model_dump(mode="json")["rules"]["judged"] == ["geometric(2.5)"]


def test_only_what_decides_results_has_a_fingerprint():
    config = StudyConfig()
    other_machine = config.model_copy(update={"compute": ComputeConfig(workers=7, device="cpu", max_wall_hours=2)})
    other_margin = config.model_copy(update={"confirm": ConfirmConfig(margin=0.01)})
    assert config.fingerprint() == other_machine.fingerprint()
    assert config.fingerprint() != other_margin.fingerprint()
    assert config.semantic().keys() == StudyConfig.model_fields.keys() - {"compute"}


def unmarked(model):
    """The fields of a section, the sections among them apart, of which nobody said what they are."""
    for name, field in model.model_fields.items():
        if not any(sections_in(field.annotation)):
            try:
                role = model.role_of(name)
            except AttributeError:
                role = None
            if role not in get_args(Role):
                yield name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_marked_semantic_or_operational(model):
    assert list(unmarked(model)) == []
    assert "role" in vars(model), "a section says itself what its fields are"


def test_a_field_that_is_not_marked_would_be_noticed():
    class Unmarked(Section):
        field: int = 0
        marked: Annotated[int, Operational] = 0

    assert list(unmarked(Unmarked)) == ["field"]


def test_entries_of_lists_decide_results_throughout():
    listed = [
        section
        for model in MODELS
        for field in model.model_fields.values()
        if get_origin(field.annotation) is tuple
        for section in sections_in(field.annotation)
    ]
    assert listed
    assert all(section.operational() == {} for section in listed)


def operational(model, prefix=""):
    """Every operational field with its dotted path."""
    for name, field in model.model_fields.items():
        inner = [*sections_in(field.annotation)]
        for section in inner:
            yield from operational(section, f"{prefix}{name}.")
        if not inner and model.role_of(name) == "operational":
            yield f"{prefix}{name}"


def test_what_another_machine_may_have_otherwise_is_settled():
    found = set(operational(StudyConfig))
    compute = {name for name in found if name.startswith("compute.")}
    assert compute == {f"compute.{name}" for name in ComputeConfig.model_fields}
    assert found - compute == {"data.path", "data.download", "data.groups", "table.path", "table.seconds_per_run"}


def test_what_is_operational_is_neither_kept_nor_in_the_fingerprint():
    def study(**places):
        return StudyConfig.model_validate({"data": {"source": "MNIST"} | places})

    here, there = study(path="/here"), study(path="/there", download=True, groups="g.csv")
    assert here.semantic() == there.semantic()
    assert here.fingerprint() == there.fingerprint()
    assert {"path", "download", "groups"}.isdisjoint(here.semantic()["data"])
    assert here.semantic()["data"]["source"] == "MNIST"
    other = StudyConfig.model_validate({"data": {"source": "KMNIST", "path": "/here"}})
    assert other.fingerprint() != here.fingerprint()


def test_a_table_may_lie_elsewhere_and_take_its_time():
    def study(**table):
        return StudyConfig.model_validate({"table": {"noise_sd": 0.002} | table})

    here, there = study(path="/here.csv"), study(path="/there.csv", seconds_per_run=2)
    assert here.semantic() == there.semantic()
    assert here.fingerprint() == there.fingerprint()
    assert study(path="/here.csv", noise_sd=0.003).fingerprint() != here.fingerprint()


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"device": "cpu", "gpus_per_worker": 0.5}, "gpus_per_worker 0.5 is for a GPU, and device is cpu"),
        ({"gpus_per_worker": 0}, "greater than 0"),
        ({"gpus_per_worker": 2}, "less than or equal to 1"),
        ({"lease_seconds": 0.5}, "greater than or equal to 1"),
        ({"max_job_minutes": 0}, "greater than 0"),
        ({"max_gpu_hours": -1}, "greater than 0"),
    ],
)
def test_limits_and_shares_that_are_none_are_refused(compute, message):
    with pytest.raises(ValidationError, match=message):
        ComputeConfig.model_validate(compute)


@pytest.mark.parametrize(
    "name", ["../etc/x", "a/b", "/a", "a\\b", "", ".", "..", ".hidden", "-x", "a b", "a" * 65, "a\n"]
)
def test_a_name_is_no_path(name):
    with pytest.raises(ValidationError, match="it is no path"):
        StudyConfig(name=name)


@pytest.mark.parametrize("name", ["digits", "2026-11_a.b", "a" * 64])
def test_plain_names_are_names(name):
    assert StudyConfig(name=name).name == name


@pytest.mark.parametrize(
    ("stages", "ranges"),
    [
        ([{}], [(2, 64)]),
        ([{"low": 4, "high": 4}], [(4, 4)]),
        ([{"high": 5}, {"high": "combinations"}, {"high": 9}], [(2, 5), (2, 31), (2, 9)]),
        ([{"high": 3}, {"high": "combinations"}, {"high": "combinations"}], [(2, 3), (2, 7), (2, 127)]),
        ([{"high": 40}, {"high": "combinations"}], [(2, 40), (2, 2**40 - 1)]),
    ],
)
def test_combinations_are_worked_out(stages, ranges):
    assert FiltersConfig.model_validate({"stages": stages}).ranges() == ranges


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"stages": [{"low": 9, "high": 3}]}, "stage 1 has low 9 above high 3"),
        ({"stages": [{}, {"low": 65}]}, "stage 2 has low 65 above high 64"),
        ({"stages": [{"low": 9, "high": 15}], "multiple": 8}, "stage 1 has no multiple of 8 from low 9 to high 15"),
        ({"stages": [{"high": "combinations"}]}, "stage 1 has no stage before it"),
        ({"stages": [{"high": 41}, {"high": "combinations"}]}, "stage 2 reaches 2\\^41-1 filters; lower the high"),
        ({"stages": [{"high": 2**40 + 1}]}, "stage 1 reaches 1099511627777 filters"),
        ({"stages": []}, "at least 1 item"),
        ({"stages": [{}] * 13}, "at most 12 items"),
        ({"stages": [{"low": 0}]}, "greater than or equal to 1"),
        ({"multiple": 0}, "greater than or equal to 1"),
    ],
)
def test_ranges_nothing_lies_in_are_refused(filters, message):
    with pytest.raises(ValidationError, match=message):
        FiltersConfig.model_validate(filters)


@pytest.mark.parametrize("looks", [(1, 2), (16, 16), (32, 16)])
def test_looks_rise_from_two(looks):
    with pytest.raises(ValidationError, match="must rise and start at 2 runs or more"):
        ConfirmConfig(looks=looks)


@pytest.mark.parametrize("margin", [0, -0.1, 0.5, float("nan"), float("inf")])
def test_a_margin_is_a_small_fraction(margin):
    with pytest.raises(ValidationError, match="margin"):
        ConfirmConfig(margin=margin)


def test_training_images_remain():
    with pytest.raises(ValidationError, match="leave no training images"):
        StudyConfig.model_validate({"data": {"test_fraction": 0.6, "validation_fraction": 0.4}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": ["params <= 9", "params <= 9"]}, "budgets names one twice"),
        ({"rules": {"judged": ["uniform"]}}, "rules names one twice"),
        ({"budgets": ["params <= 0"]}, "allows nothing"),
        ({"budgets": [5]}, "a budget is text such as"),
        ({"rules": {"judged": [5]}}, "'5' is no rule"),
    ],
)
def test_budgets_and_rules_are_read_and_differ(change, message):
    with pytest.raises(ValidationError, match=message):
        StudyConfig.model_validate(change)


SURFACE = {"surface": {}, "images": {}, "noise_sd": 0.0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "give one of path and surface"),
        ({"path": "a.csv", "surface": {}, "noise_sd": 0.0}, "give one of path and surface"),
        ({"path": "a.csv"}, "one accuracy for each schedule needs noise_sd"),
        ({"surface": {}, "noise_sd": 0.0}, "a surface needs images to price its schedules for"),
        (SURFACE | {"percent": True}, "a surface has no file; leave columns and percent out"),
        (SURFACE | {"exhaustive": True}, "exhaustive looks at no runs, so noise_sd and noise_spread have no use"),
        (
            {"path": "a.csv", "exhaustive": True, "seconds_per_run": 0.1},
            "seconds_per_run 0.1 has no use, as exhaustive looks at no runs; leave it out",
        ),
        (
            {"path": "a.csv", "columns": {"accuracy": ["a", "b"]}, "noise_sd": 0.1},
            "several accuracy columns are the runs, so noise_sd",
        ),
        ({"path": "a.csv", "noise_sd": 0.0, "columns": {"macs": "params"}}, "columns names one twice"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(table, message):
    with pytest.raises(ValidationError, match=message):
        StudyConfig.model_validate({"table": table})


@pytest.mark.parametrize(
    ("table", "values", "key"),
    [
        (SURFACE, {"training": {"epochs": 3}}, "training"),
        (SURFACE, {"data": {"split_seed": 3}}, "data"),
        (SURFACE, {"soundness": {"learning_rate_runs": 4}}, "soundness"),
        ({"path": "a.csv", "noise_sd": 0.0}, {"network": {"blocks_per_stage": 2}}, "network"),
        ({"path": "a.csv", "exhaustive": True}, {"search": {"trials": 3}}, "search"),
        ({"path": "a.csv", "exhaustive": True}, {"confirm": {"looks": [3]}}, "confirm.looks"),
    ],
)
def test_what_a_table_leaves_unused_is_refused(table, values, key):
    with pytest.raises(ValidationError, match=f"{key} has no use beside this table; leave it out"):
        StudyConfig.model_validate({"table": table} | values)
    assert StudyConfig.model_validate({"table": table}).table is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"classes": [[0, 1], 1, 0]}, "classes names 0, 1 more than once; each class belongs to one group"),
        ({"classes": [3]}, r"classes \[3\] leaves one class, so there is nothing to tell apart"),
        ({"classes": [[0, 1, 2]]}, r"classes \[\[0, 1, 2\]\] leaves one class"),
        ({"classes": [[], [1]]}, "at least 1 item"),
        ({"classes": [-1, 2]}, "greater than or equal to 0"),
        ({"features": 4}, "features 4 is for source combinations; leave it out"),
        ({"images": 100}, "images 100 is for source combinations"),
        ({"source": "combinations", "features": 7}, "less than or equal to 6"),
    ],
)
def test_data_that_say_nothing_are_refused(data, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(data)


def test_an_allowance_pays_for_a_look():
    with pytest.raises(
        ValidationError, match="allowance 79 does not pay for one look: a rule and 4 challengers at 16"
    ):
        ConfirmConfig(allowance=79)
    assert ConfirmConfig(allowance=80).allowance == 80


def test_a_choice_that_came_later_leaves_earlier_fingerprints_as_they_were():
    usual = StudyConfig()
    earlier = usual.model_dump(mode="json", exclude={"compute"})
    del earlier["training"]["precision"]
    assert usual.fingerprint() == hashlib.sha256(json.dumps(earlier, sort_keys=True).encode()).hexdigest()
    other = usual.model_copy(update={"training": usual.training.model_copy(update={"precision": "bfloat16"})})
    assert other.fingerprint() != usual.fingerprint()
