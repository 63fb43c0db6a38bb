"""What `confirm` and `status` print of verdicts on terms chosen after looking."""

import pytest
from planted_findings import make_storage

from search import cli, configfile, display, study
from search.cases import Exploration, Standing, store_cases, store_exploration
from search.config import StudyConfig
from search.confirm import choose_cases
from search.plan import make_plan
from search.progress import progress
from search.schedule import FilterSchedule


@pytest.fixture
def standing(findings):
    case, verdict = findings.findings[0].case, findings.findings[0].verdict
    return Standing(case, verdict, 0.96, FilterSchedule.parse(verdict.best), 0.98)


def test_only_terms_chosen_after_looking_are_marked(standing, plan, capsys):
    display.show_standings([standing], plan.config)
    assert "exploratory" not in capsys.readouterr().out
    display.show_standings([standing], plan.config, exploratory=True)
    assert capsys.readouterr().out.startswith("exploratory: on terms chosen after looking;")


def test_status_shows_the_verdicts_explored_with_their_margins_below_those_planned(standing, plan, tmp_path, capsys):
    counts = progress(make_storage(plan, tmp_path))
    explored = [(plan.config.confirm.model_copy(update={"margin": margin}), [standing]) for margin in (0.01, 0.03)]
    display.show_status(counts, [], [standing], plan.config, explored)
    planned, *others = capsys.readouterr().out.split("exploratory: ")
    assert "margin 0.5 points" in planned
    assert [other.rstrip().rpartition("; ")[2] for other in others] == ["margin 1 points", "margin 3 points"]
    assert all("8-8-8" in other for other in others)


def test_the_command_status_finds_what_was_explored(tmp_path, capsys):
    config = StudyConfig(name="small")
    plan = make_plan(config)
    cases = choose_cases(plan, None)
    storage = study.create(tmp_path, config, plan.objective.directions, plan.data.fingerprint)
    configfile.write(config, tmp_path / "config.yaml")
    store_cases(storage, cases)
    terms = config.confirm.model_copy(update={"margin": 0.03})
    store_exploration(storage, Exploration(terms, tuple(cases)))
    cli.app(["status", str(tmp_path)], standalone_mode=False)
    said = capsys.readouterr().out
    assert said.count("exploratory") == 1
    assert said.index("margin 0.5 points") < said.index("exploratory") < said.index("margin 3 points")
