"""What the dashboard tells of a study, and that the study never notices."""

import io
import json
import math
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from asking import ask
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial
from optuna_dashboard import save_note, wsgi
from planted_findings import make_storage

from search import configfile
from search.annotations import Annotations, Moment
from search.dashboard.artifacts import FolderArtifacts
from search.dashboard.guard import Guard, own_hosts
from search.dashboard.live import Live
from search.dashboard.mirror import Mirror
from search.dashboard.page import Page
from search.dashboard.reading import read
from search.dashboard.server import serve
from search.dashboard.telling import best_within, note, told
from search.dashboard.view import Viewer
from search.errors import ConfigError
from search.schedule import FilterSchedule
from search.study import costs_of, load


@pytest.fixture(scope="module")
def original(plan, tmp_path_factory):
    """The folder of a planted study, whose most accurate trial is beyond every budget."""
    folder = tmp_path_factory.mktemp("original")
    configfile.write(plan.config, folder / "config.yaml")
    storage = make_storage(plan, folder)
    wide = FilterSchedule((60, 60, 60))
    attrs = storage.trials("search")[0].user_attrs
    attrs |= {"schedule": str(wide), "costs": asdict(plan.cost_model.costs(wide)), "proposal": 99}
    storage.search.add_trial(create_trial(value=1.0, user_attrs=attrs))
    storage.backend.remove_session()
    storage.backend.engine.dispose()
    (folder / "report.html").write_text("<p>report")
    (folder / "figures").mkdir()
    (folder / "figures" / "ratios.png").write_bytes(b"png")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "planted")


@pytest.fixture
def opened(folder, plan):
    storage = load(folder, plan.config.name)
    yield storage
    storage.backend.remove_session()
    storage.backend.engine.dispose()


def described(store):
    return {json.loads(meta)["filename"]: artifact for artifact, meta in store.described().items()}


def test_artifacts_are_the_files_written_for_people(folder):
    store = FolderArtifacts(folder)
    ids = described(store)
    assert set(ids) == {"./report.html", "figures/ratios.png"}
    assert min(ids) == "./report.html"  # first on the page, which sorts by name
    with store.open_reader(ids["figures/ratios.png"]) as file:
        assert file.read() == b"png"
    assert store.file_name(ids["./report.html"]) == "report.html"
    assert described(FolderArtifacts(folder)) == ids


def test_artifacts_follow_no_links(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret.png").write_bytes(b"secret")
    (folder / "figures" / "link.png").symlink_to(elsewhere / "secret.png")
    (folder / "best").symlink_to(elsewhere)
    store = FolderArtifacts(folder)
    assert "figures/link.png" not in described(store)
    artifact = described(store)["figures/ratios.png"]
    store.paths = lambda: [(folder / "figures" / "ratios.png").relative_to(folder)]  # found before it was replaced
    (folder / "figures" / "ratios.png").unlink()
    (folder / "figures" / "ratios.png").symlink_to(elsewhere / "secret.png")
    with pytest.raises(ArtifactNotFound):
        store.open_reader(artifact)


def test_artifacts_are_never_written(folder):
    store = FolderArtifacts(folder)
    with pytest.raises(ArtifactNotFound):
        store.open_reader("../study.db")
    with pytest.raises(PermissionError, match="read only"):
        store.write("a", io.BytesIO())
    with pytest.raises(PermissionError, match="read only"):
        store.remove(described(store)["./report.html"])
    assert (folder / "report.html").exists()


def test_a_mirror_has_the_studys_ids_and_cannot_be_changed(opened):
    seen = read(opened)
    mirror = Mirror([(seen.studies[purpose], seen.trials[purpose]) for purpose in seen.studies])
    study_id = mirror.get_study_id_from_name(opened.search.study_name)
    assert mirror.get_all_trials(study_id) == opened.backend.get_all_trials(study_id)
    app = wsgi(mirror)
    trial = seen.trials["search"][0]._trial_id
    for method, path in (
        ("DELETE", f"/api/studies/{study_id}"),
        ("POST", "/api/studies"),
        ("PUT", f"/api/studies/{study_id}/note"),
        ("POST", f"/api/trials/{trial}/tell"),
        ("POST", f"/api/trials/{trial}/user-attrs"),
    ):
        body = {"version": 1, "body": "x", "user_attrs": {"a": 1}, "state": "fail", "study_name": "y"}
        assert ask(app, path, method, body=json.dumps(body | {"directions": ["minimize"]}).encode())[0] == 500
    assert mirror.get_all_trials(study_id) == opened.backend.get_all_trials(study_id)


def test_a_study_is_read_as_optuna_reads_it(opened):
    odd = opened.search.ask({"stage_1": IntDistribution(2, 64, log=True)})
    for step, value in enumerate((0.5, math.inf, -math.inf)):
        odd.report(value, step)
    opened.search.tell(odd, math.inf)
    opened.search.enqueue_trial({"stage_1": 3})
    seen = read(opened)
    assert TrialState.WAITING in {trial.state for trial in seen.trials["search"]}
    for purpose, trials in seen.trials.items():
        assert trials == opened.trials(purpose)
        assert seen.studies[purpose].study_name == opened.study(purpose).study_name


def test_the_dashboard_is_loaded_without_what_it_does_not_need():
    loaded = "with _without_scikit_learn(): import search.dashboard.live\n"
    later = "import sys; assert 'sklearn' not in sys.modules; import sklearn.ensemble"
    code = f"from search.dashboard.server import _without_scikit_learn\n{loaded}{later}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_trials_are_told_for_people(plan, opened):
    trial, failed = opened.trials("search")[0], opened.trials("search", TrialState.FAIL)[0]
    shown = told(trial, plan.config.budgets)
    assert not {"owner", "proposal", "costs", "correct"} & set(shown.user_attrs)
    assert shown.user_attrs["schedule"] == trial.user_attrs["schedule"]
    assert shown.user_attrs["runs"] == 2
    assert shown.user_attrs["params"] == costs_of(trial).params
    assert (shown.number, shown._trial_id) == (trial.number, trial._trial_id)
    assert told(failed, plan.config.budgets).user_attrs["reason"] == "diverged"


def test_a_trial_is_feasible_where_any_budget_holds_it(plan, opened):
    for trial in opened.trials("search"):
        met = [budget for budget in plan.config.budgets if budget.admits(costs_of(trial))]
        shown = told(trial, plan.config.budgets)
        assert (shown.system_attrs["constraints"][0] <= 0) is bool(met)
        assert shown.user_attrs["within"] == (", ".join(map(str, met)) or "no budget")


def test_notes_say_what_a_trial_was(plan, opened):
    trial, failed = opened.trials("search")[0], opened.trials("search", TrialState.FAIL)[0]
    said = note(trial, "search", plan.config.budgets)
    assert said.startswith(f"## {trial.user_attrs['schedule']}\n\nRule doubling, aimed at `params <= 1500`.")
    assert "on the validation split, mean of 2 runs." in said
    assert "% of 1,500" in said
    assert all(f"| {run['seed']} |" in said for run in trial.user_attrs["runs"])
    assert "**Failed**: diverged." in note(failed, "search", plan.config.budgets)


def view_of(plan, storage, folder, painted=None):
    return Viewer(plan.config, FolderArtifacts(folder)).view(read(storage), painted)


def detail(app, study_id=1, after=0):
    status, _, body = ask(app, f"/api/studies/{study_id}", query=f"after={after}")
    assert status == 200
    return json.loads(body)


def test_best_trials_are_those_within_the_budgets(plan, opened, folder):
    shown = detail(view_of(plan, opened, folder))
    best = best_within(opened.trials("search"), plan.config.budgets)
    assert {trial["number"] for trial in shown["best_trials"]} == set(best)
    highest = max(opened.trials("search", TrialState.COMPLETE), key=lambda trial: trial.value)
    assert highest.number not in best  # or the test shows nothing: Optuna's dashboard would name it


def test_a_page_gets_the_trials_it_has_not_yet(plan, opened, folder):
    view = view_of(plan, opened, folder)
    every = detail(view)["trials"]
    assert [trial["number"] for trial in every] == [trial.number for trial in opened.trials("search")]
    assert all(trial["note"]["body"].startswith("## ") for trial in every)
    assert detail(view, after=3)["trials"] == every[3:]
    assert ask(view, "/api/studies/1", query="after=-1")[0] == 400
    assert ask(view, "/api/studies/77", query="after=0")[0] == 404


def test_studies_without_parameters_have_no_importances(plan, opened, folder):
    status, _, body = ask(view_of(plan, opened, folder), "/api/studies/2/param_importances")
    assert (status, json.loads(body)) == (200, {"param_importances": [[]]})


def test_pictures_and_note_are_shown_unless_somebody_wrote_one(plan, opened, folder):
    assert "being worked out" in detail(view_of(plan, opened, folder))["note"]["body"]
    painted = Annotations(Moment("confirm", 9, True), "# ours", {"ratios": "{}", "falloff": "[]"})
    shown = detail(view_of(plan, opened, folder, painted))
    assert shown["note"] == {"version": 0, "body": "# ours"}
    assert [each["id"] for each in shown["plotly_graph_objects"]] == ["filter-search-ratios", "filter-search-falloff"]
    save_note(opened.search, "mine")
    assert detail(view_of(plan, opened, folder, painted))["note"] == {"version": 1, "body": "mine"}


@pytest.fixture
def live(monkeypatch):
    """Makes what serves a study; no pictures are painted, and nothing is left running."""
    monkeypatch.setattr("search.dashboard.live.Painter.paint", lambda *_: None)
    monkeypatch.setattr("search.dashboard.live._PAUSE_SECONDS", 0.05)
    made = []

    def make(folder, plan, storage, edits=False):
        made.append(Live(folder, plan.config, storage, edits=edits))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.end()


def files(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_looking_leaves_a_study_as_it_is(live, plan, opened, folder):
    before = files(folder)
    app = Guard(live(folder, plan, opened), own_hosts("127.0.0.1", ()), None, edits=False, file_names=lambda _: None)
    for path in ("/dashboard", "/api/meta", "/api/studies", "/csv/1", "/api/studies/1/plot/contour"):
        ask(app, path)
    for method in ("POST", "PUT", "DELETE"):
        ask(app, "/api/studies/1", method)
    assert len(detail(app)["trials"]) == len(opened.trials("search"))
    assert files(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_can_be_looked_at(live, plan, opened, folder):
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert detail(live(folder, plan, opened))["trials"]
    finally:
        folder.chmod(stat.S_IRWXU)


def test_what_is_new_appears_under_the_same_ids(live, plan, opened, folder):
    app = live(folder, plan, opened)
    before = detail(app)["trials"]
    elsewhere = load(folder, plan.config.name)
    elsewhere.search.add_trial(elsewhere.trials("search")[0])
    deadline = time.monotonic() + 20
    while len(after := detail(app)["trials"]) == len(before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert after[:-1] == before
    assert after[-1]["number"] == len(before)
    elsewhere.backend.remove_session()
    elsewhere.backend.engine.dispose()


def test_a_note_written_is_kept_in_the_study_and_shown(live, plan, opened, folder):
    app = live(folder, plan, opened, edits=True)
    trial = detail(app)["trials"][2]
    body = json.dumps({"version": trial["note"]["version"] + 1, "body": "odd"}).encode()
    assert ask(app, f"/api/studies/1/{trial['trial_id']}/note", "PUT", body=body)[0] == 204
    deadline = time.monotonic() + 20
    while detail(app)["trials"][2]["note"]["body"] != "odd" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert detail(app)["trials"][2]["note"] == {"version": 1, "body": "odd"}


def test_what_would_be_refused_is_not_offered():
    def page(edits):
        return ask(Page(wsgi(Mirror(())), edits=edits), "/dashboard/studies/1")[2].decode()

    assert '[aria-label="delete study"]' in page(False)
    assert '[aria-label="delete study"]' in page(True)
    assert "EditIcon" in page(False)
    assert "EditIcon" not in page(True)


def test_a_port_that_is_taken_is_said_so(plan, opened, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be served .*--port"):
            serve(folder, plan.config, opened, host="127.0.0.1", port=port, edits=False, say=print)
    with pytest.raises(ConfigError, match="--host"):
        serve(folder, plan.config, opened, host="no.such.host.invalid", port=0, edits=False, say=print)
