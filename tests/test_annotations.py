"""What a study keeps for Optuna's dashboard: objective names, note, pictures."""

import json

import optuna
import pytest
import sqlalchemy
from optuna_dashboard import get_note, save_note
from planted_findings import make_plan, make_storage

from search import wording
from search.annotations import Annotations, Moment, annotate, annotations, is_edited, keep, kept, objective_names
from search.errors import StorageError
from search.outcome import write as write_outcome
from search.study import load

MADE = Annotations(Moment("confirm", 40, True), "# first", {"ratios": '{"data": [], "layout": {}}'})


@pytest.fixture
def study():
    return optuna.create_study()


def plots(study):
    attrs = study._storage.get_study_system_attrs(study._study_id)
    return {key.split(":")[2] for key, text in attrs.items() if key.startswith("dashboard:plot_data:") and text}


def test_a_study_keeps_its_words_and_pictures(findings, storage_of_plan):
    annotate(storage_of_plan, findings)
    note = get_note(storage_of_plan.search)
    assert note.startswith(f"# {findings.plan.config.question}")
    assert wording.answer(findings.findings) in note
    for finding in findings.findings:
        assert wording.headline(finding, findings.plan.config.confirm) in note
    assert storage_of_plan.search.metric_names == ["validation accuracy"]
    assert {"filter-search-confirmation", "filter-search-ratios", "filter-search-stages"} <= plots(
        storage_of_plan.search
    )


def test_pictures_carry_their_title_and_fit_where_they_are_shown(findings, storage_of_plan):
    made = annotations(storage_of_plan, findings)
    for plot in made.plots.values():
        layout = json.loads(plot)["layout"]
        assert layout["title"]["text"]
        assert "height" not in layout


def test_before_confirmation_the_best_trials_are_told(plan, early, storage_of_plan):
    assert "## Best trials so far" in annotations(storage_of_plan, early).note


def test_a_note_is_written_again_unless_somebody_edited_it(study):
    keep(study, MADE)
    keep(study, Annotations(MADE.moment, "# second", MADE.plots))
    assert get_note(study) == "# second"
    assert not is_edited(get_note(study), kept(study.user_attrs))
    save_note(study, "# second, and I doubt it")
    keep(study, Annotations(MADE.moment, "# third", MADE.plots))
    assert get_note(study) == "# second, and I doubt it"
    assert is_edited(get_note(study), kept(study.user_attrs))


def test_large_pictures_are_left_out_and_that_is_known(study):
    keep(study, Annotations(MADE.moment, "", MADE.plots | {"huge": json.dumps({"data": "x" * 300_000})}))
    assert plots(study) == {"filter-search-ratios"}
    assert kept(study.user_attrs)["whole"] is False


def test_what_was_kept_is_not_written_again(study, monkeypatch):
    keep(study, MADE)
    monkeypatch.setattr("search.annotations.save_plotly_graph_object", lambda *_, **__: pytest.fail("written again"))
    keep(study, MADE)


@pytest.mark.parametrize(
    ("later", "outdated"),
    [
        (Moment("confirm", 44, True), False),
        (Moment("confirm", 45, True), True),
        (Moment("probe", 40, True), True),
        (Moment("confirm", 40, False), True),
    ],
)
def test_pictures_are_made_anew_when_a_study_has_moved_on(later, outdated):
    assert later.outdates(MADE.moment) is outdated
    assert later.outdates(None)


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("constrained", ["validation accuracy"]),
        ("weighted", ["weighted validation accuracy"]),
        ("pareto", ["validation accuracy", "parameters", "training memory in bytes"]),
    ],
)
def test_every_value_has_a_name(objective, names):
    assert objective_names(make_plan(search={"objective": objective}).config) == names


@pytest.fixture
def outcome(plan, findings, monkeypatch, tmp_path):
    """Writes the outcome of a planted study, after a statement that changes its database or the connection to it."""
    make_storage(plan, tmp_path)
    storage = load(tmp_path, plan.config.name)
    monkeypatch.setattr("search.outcome.write_records", lambda *_: None)  # planted runs took no time
    monkeypatch.setattr("search.outcome.stored_cases", lambda _: [])
    monkeypatch.setattr("search.outcome.conclude", lambda *_: findings)

    def written_after(statement):
        # for every connection to come, since none is kept
        sqlalchemy.event.listen(storage.backend.engine, "connect", lambda raw, _: raw.execute(statement))
        return write_outcome(plan, storage, tmp_path)

    yield written_after
    storage.backend.remove_session()
    storage.backend.engine.dispose()


def test_a_storage_that_can_only_be_read_still_gets_its_report(outcome, findings, plan, tmp_path):
    assert outcome("PRAGMA query_only = ON") is findings
    assert (tmp_path / "report.html").exists()
    assert not kept(load(tmp_path, plan.config.name).search.user_attrs)


def test_a_storage_that_is_damaged_is_said_so(outcome, tmp_path):
    with pytest.raises(StorageError, match="no such table"):
        outcome("DROP TABLE IF EXISTS study_system_attributes")
    assert (tmp_path / "report.html").exists()
