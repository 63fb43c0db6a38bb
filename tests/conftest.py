from collections.abc import Callable

import pytest
import torch
from browser import chromium, page
from hypothesis import settings
from planted_findings import PlantedChallenger, make_finding, make_findings, make_plan, make_storage
from postgres import postgres

from search.findings import Finding, Findings
from search.plan import StudyPlan
from search.study import Storage

__all__ = ["chromium", "page", "postgres"]  # fixtures

settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")
torch.set_num_threads(1)  # tiny networks: a second thread costs more than it brings


@pytest.fixture(scope="session")
def plan() -> StudyPlan:
    return make_plan()


@pytest.fixture(scope="session")
def findings(plan) -> Findings:
    return make_findings(plan)


@pytest.fixture(scope="session")
def early(plan) -> Findings:
    """A study stopped before its first look, too early for a surrogate."""
    case = make_finding(plan, 0, 0, [PlantedChallenger("8-8-8", "uniform", 0.02)])
    return Findings(plan, (case,), (), None)


@pytest.fixture(scope="session")
def open_case(plan) -> Callable[[int, float], Finding]:
    """A case under 1,500 parameters with one challenger, by its number of runs and its gain."""
    return lambda runs, gain: make_finding(plan, 0, runs, [PlantedChallenger("8-8-8", "uniform", gain)])


@pytest.fixture(scope="session")
def storage_of_plan(plan, tmp_path_factory) -> Storage:
    return make_storage(plan, tmp_path_factory.mktemp("planted"))
