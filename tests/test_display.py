"""What `confirm` and `status` print: verdicts on terms chosen after looking, and who holds the jobs that run."""

import json
from dataclasses import replace

import pytest
from planted_findings import make_storage

from search import cli, configfile, display, queues, study
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


@pytest.fixture
def running(tmp_path):
    """A study of which three supervisors on two hosts hold a job each, and one of these another."""
    config = StudyConfig(name="small")
    made = study.create(tmp_path, config, ("maximize",), "data")
    configfile.write(config, tmp_path / "config.yaml")
    queues.enqueue_missing(made, [queues.Proposal("band", config.budgets[0], {})] * 5)
    for supervisor in ("beta:7:aa", "alpha:7:bb", "alpha:8:cc", "alpha:8:cc"):
        study.load(tmp_path, "small", supervisor=supervisor).claim("search")
    return made, tmp_path


def test_the_command_status_tells_who_holds_the_jobs_that_run(running, capsys):
    made, folder = running
    cli.app(["status", str(folder)], standalone_mode=False)
    assert "at work  4 jobs held by 3 supervisors: alpha (2) and beta\n" in capsys.readouterr().out
    cli.app(["status", str(folder), "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert (said["running"], said["held_on"]) == (4, ["alpha", "alpha", "beta"])
    made.release("search", lambda _: True, "interrupted", counts=False)
    cli.app(["status", str(folder)], standalone_mode=False)
    assert "at work" not in capsys.readouterr().out


def test_of_many_hosts_some_are_named_and_none_is_obeyed(running, plan, capsys):
    made, _ = running
    hosts = tuple(f"[red]node-{number:02}" for number in range(30))
    display.show_status(replace(progress(made), running=30, held_on=hosts), [], [], plan.config)
    said = capsys.readouterr().out
    assert "held by 30 supervisors: [red]node-00, [red]node-01" in said
    assert "[red]node-07 and 22 more\n" in said
