import subprocess
import sys
from pathlib import Path

import pytest

import search
from search import Search, load_study
from search.errors import ConfigError, StorageError

_PLANTED = Path(__file__).parent.parent / "configs" / "planted.yaml"
_SMALL = ["search.trials=20", "confirm.looks=[4,8]"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "planted"
    return Search.from_config(_PLANTED, overrides=_SMALL, out=folder).run(workers=1, quiet=True)


def test_what_is_public_is_exactly_what_is_there():
    assert sorted(search.__all__) == search.__all__
    for name in search.__all__:
        assert getattr(search, name).__name__ == name
        assert getattr(search, name).__doc__
    with pytest.raises(AttributeError, match=r"no attribute 'Serach'; it offers .*Search"):
        _ = search.Serach


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'optuna', 'pandas', 'plotly'} & set(sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, search; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "set()"


@pytest.mark.integration
def test_a_search_from_python_leaves_the_folder_that_the_command_would(study):
    assert {"report.html", "verdict.json", "trials.csv", "study.db"} <= {path.name for path in study.folder.iterdir()}


@pytest.mark.integration
def test_trials_and_runs_are_frames_with_the_columns_of_the_files(study):
    trials, runs = study.trials(), study.runs()
    assert list(trials.columns) == (study.folder / "trials.csv").read_text().partition("\n")[0].split(",")
    assert list(runs.columns) == (study.folder / "runs.csv").read_text().partition("\n")[0].split(",")
    assert len(trials) == 20
    assert trials.accuracy.between(0, 1).all()
    assert {"search", "confirm"} <= set(runs.purpose)


@pytest.mark.integration
def test_verdicts_are_rows_with_their_intervals(study):
    verdicts = study.verdicts()
    assert list(verdicts.cost) == ["params", "activations"]
    assert (verdicts.regret_low <= verdicts.regret_high).all()
    assert set(verdicts.verdict) <= {"near-optimal", "not near-optimal", "undecided"}


@pytest.mark.integration
def test_figures_are_those_of_the_report(study):
    names = {path.stem for path in (study.folder / "figures").glob("*.svg")}
    assert set(study.figures()) == names
    assert all(figure.data for figure in study.figures().values())


@pytest.mark.integration
def test_a_notebook_shows_question_answer_and_what_to_use(study):
    shown = study._repr_html_()
    assert study.config.question in shown
    assert shown.count("<li>") == 2
    assert study.answer.startswith("Doubling")


@pytest.mark.integration
def test_a_finished_study_is_loaded_and_continued_but_not_overwritten(study):
    assert load_study(study.folder).answer == study.answer
    again = Search.from_config(_PLANTED, overrides=_SMALL, out=study.folder)
    with pytest.raises(ConfigError, match="a study exists"):
        again.run(quiet=True)
    assert len(again.run(workers=1, resume=True, quiet=True).trials()) == 20


def test_a_mapping_is_a_configuration_too():
    made = Search.from_config({"name": "mine", "search": {"trials": 9}}, overrides=["seed=3"])
    assert (made.config.search.trials, made.config.seed, made.folder) == (9, 3, Path("studies/mine"))
    with pytest.raises(ConfigError, match=r"the configuration given: serach"):
        Search.from_config({"serach": {}})


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(StorageError, match="is no study folder"):
        load_study(tmp_path)
