"""Workers on a real Ray cluster of several nodes on this host; a stand-in does a worker's work."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from optuna.trial import TrialState

from search import cli, raylaunch, study
from search.config import ComputeConfig
from search.errors import ConfigError, FilterSearchError
from search.raykeeper import Keeper, Task
from search.raylaunch import RayWorkers, capacity, storage_environment

pytestmark = pytest.mark.integration
NEEDED = os.environ.get("FILTER_SEARCH_NEEDS_RAY") == "1"
SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
SECRET = "postgresql://me:c4nary-of-ray@nowhere.invalid/db"
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

def end(number, _):
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, end)
folder, does = Path(sys.argv[1]), os.environ["STAND_IN"]
knows = sorted(path.name for path in folder.iterdir())
said = {"knows": knows, "given": sys.argv[2:], "storage": os.environ["FILTER_SEARCH_STORAGE"]}
log = Path(os.environ["STAND_IN_LOG"])
(log / f".{os.getpid()}").write_text(json.dumps(said))
(log / f".{os.getpid()}").rename(log / str(os.getpid()))
if does == "fail":
    sys.exit("there are no images")
time.sleep(0 if does == "be done" else 600)
"""


LAUNCH = """
import sys, time
from pathlib import Path
from search import cli, raylaunch, study
from search.config import ComputeConfig
from search.raylaunch import RayWorkers

address, folder, script, log = sys.argv[1:]
compute = ComputeConfig(workers=2, device="cpu", ray_address=address)
environment = {"STAND_IN": "wait", "STAND_IN_LOG": log, "FILTER_SEARCH_STORAGE": ""}
with RayWorkers(Path(folder), compute, environment, command=(script,)) as workers:
    while True:
        workers.tend(None)
        time.sleep(0.1)
"""


@pytest.fixture(scope="session")
def ray_cluster():
    """What starts a cluster with a head that holds no worker, and two nodes that hold one each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        message = "Ray is not installed; pip install 'filter-search[ray]'"
        (pytest.fail if NEEDED else pytest.skip)(message)
    cluster = Cluster(initialize_head=True, head_node_args=SMALL | {"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **SMALL)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def stand_in(ray_cluster, tmp_path):
    """Begins workers that do as told in place of a worker's work, on a study of its own."""
    script, log, folder = tmp_path / "stand_in.py", tmp_path / "log", tmp_path / "study"
    script.write_text(STAND_IN)
    log.mkdir()
    return StandIn(ray_cluster, script, log, folder)


class StandIn:
    def __init__(self, cluster, script, log, folder):
        self.cluster, self.script, self.log, self.folder = cluster, script, log, folder
        self.owners = []
        self.storage = SimpleNamespace(has_claimed=lambda whose: any(map(whose, self.owners)))
        folder.mkdir()
        (folder / "config.yaml").write_text("name: digits\n")

    def begin(self, does, workers="auto", **compute):
        settings = ComputeConfig(workers=workers, device="cpu", ray_address=self.cluster.address, **compute)
        environment = {"STAND_IN": does, "STAND_IN_LOG": str(self.log), "FILTER_SEARCH_STORAGE": SECRET}
        return RayWorkers(self.folder, settings, environment, command=(str(self.script),))

    def begun(self):
        """Every process that ever was, by its id, with what it said."""
        return {int(path.name): json.loads(path.read_text()) for path in self.log.iterdir() if path.name.isdecimal()}

    def alive(self):
        return {process: said for process, said in self.begun().items() if is_alive(process)}

    def wait(self, workers, condition, seconds=120):
        """Tend workers until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.begun()
            if workers:
                workers.tend(self.storage)
            time.sleep(0.1)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nodes_hold_a_worker_for_each_cpu_or_share_of_a_gpu():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert capacity(nodes, None) == 5
    assert [capacity(nodes, share) for share in (1, 0.5, 0.3, 0.25, 0.1)] == [2, 4, 6, 8, 20]
    assert capacity([], None) == 0


def test_without_ray_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'filter-search\[ray\]'"):
        RayWorkers(tmp_path, ComputeConfig(), {})


def test_what_every_node_loads_is_light():
    code = "import sys, search.raykeeper; print(*[name for name in ('torch', 'optuna', 'ray') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_workers_elsewhere_are_told_the_storage_this_process_knows(tmp_path, monkeypatch):
    monkeypatch.delenv("FILTER_SEARCH_STORAGE", raising=False)
    monkeypatch.setenv("PGPASSWORD", "c4nary")
    assert storage_environment(tmp_path) == {}
    (tmp_path / "secret").write_text("postgresql://me:p%40ss@bench:5433/studies\n")
    monkeypatch.setenv("FILTER_SEARCH_STORAGE_FILE", str(tmp_path / "secret"))
    assert storage_environment(tmp_path) == {
        "FILTER_SEARCH_STORAGE": "postgresql+psycopg://me:p%40ss@bench:5433/studies",
        "FILTER_SEARCH_STORAGE_FILE": "",
        "PGPASSWORD": "c4nary",
    }


@pytest.fixture
def task(tmp_path):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)

    def make(does, folder, **files):
        environment = {"STAND_IN": does, "STAND_IN_LOG": str(tmp_path), "FILTER_SEARCH_STORAGE": SECRET}
        return Task((str(script),), ("--workers", "1"), folder, tmp_path, files, environment)

    return make


def test_a_node_without_the_study_folder_is_given_what_tells_of_the_study(task, tmp_path):
    ended = Keeper(task("fail", tmp_path / "elsewhere", **{"config.yaml": b"", "storage.url": b""})).run()
    assert (ended.status, ended.said) == (1, "there are no images\n")
    said = json.loads((tmp_path / ended.supervisor.split(":")[1]).read_text())
    assert said["knows"] == ["config.yaml", "storage.url"]
    assert said["given"] == ["--workers", "1"]
    assert ended.supervisor.startswith(f"{socket.gethostname()}:")


def test_what_reaches_the_storage_is_never_shown(task, tmp_path):
    assert "c4nary" not in repr(task("fail", tmp_path))


def test_what_a_worker_is_given_is_a_workers(tmp_path):
    verb = typer.main.get_command(cli.app).commands["worker"]
    assert verb.make_context("worker", [str(tmp_path), *raylaunch._OPTIONS]).params["workers"] == 1


def test_a_keeper_asked_to_end_starts_nothing(task, tmp_path):
    keeper = Keeper(task("wait", tmp_path))
    keeper.drain()
    assert keeper.run() is None
    assert not [path for path in tmp_path.iterdir() if path.name.isdecimal()]


@contextmanager
def heeding(number):
    """A handler of the test's own."""

    def handler(*_): ...

    before = signal.signal(number, handler)
    try:
        yield handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "127.0.0.1:1 cannot be used"),
        ("nowhere.invalid:6379", "cannot be used"),
        ("x", "cannot be used"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_refused_at_once(ray_cluster, tmp_path, address, said):
    began = time.monotonic()
    with heeding(signal.SIGTERM) as handler:
        with pytest.raises(ConfigError, match=said) as refused:
            RayWorkers(tmp_path, ComputeConfig(ray_address=address), {})
        assert signal.getsignal(signal.SIGTERM) is handler
    assert "`ray start --head`" in str(refused.value)
    assert time.monotonic() < began + 30


def test_workers_fill_the_cluster_and_end_when_asked(stand_in):
    with heeding(signal.SIGTERM) as handler, stand_in.begin("wait") as workers:
        assert signal.getsignal(signal.SIGTERM) is handler
        stand_in.wait(workers, lambda: len(stand_in.alive()) == 2)
        for said in stand_in.alive().values():
            assert said["knows"] == ["config.yaml"]
            assert said["given"] == ["--workers", "1", "--allow-code"]
            assert said["storage"] == SECRET
        assert workers.running()
        workers.drain()
        stand_in.wait(None, lambda: not workers.running())
        assert not stand_in.alive()
    assert len(stand_in.begun()) == 2, "something was started after it was asked to end"


def test_a_password_is_nowhere_to_be_seen(stand_in):
    import ray

    with stand_in.begin("wait", workers=2) as workers:
        stand_in.wait(workers, lambda: len(stand_in.alive()) == 2)
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert any(str(stand_in.script).encode() in command for command in commands)
        assert not any(b"c4nary" in command for command in commands)
        shown = str([ray.nodes(), ray.get_runtime_context().get_job_id(), ray.util.list_named_actors()])
        assert "c4nary" not in shown
        session = Path(ray_session(stand_in.cluster))
        workers.kill()
    logs = [path for path in (session / "logs").rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if b"c4nary" in path.read_bytes()]


def ray_session(cluster):
    return cluster.head_node.get_session_dir_path()


def test_what_is_killed_leaves_nothing(stand_in):
    with stand_in.begin("wait", workers=2) as workers:
        stand_in.wait(workers, lambda: len(stand_in.alive()) == 2)
        workers.kill()
        assert not workers.running()
        stand_in.wait(None, lambda: not stand_in.alive(), seconds=60)


def test_workers_end_with_a_launch_that_is_killed(stand_in, tmp_path):
    (tmp_path / "launch.py").write_text(LAUNCH)
    arguments = [stand_in.cluster.address, stand_in.folder, stand_in.script, stand_in.log]
    launch = subprocess.Popen([sys.executable, tmp_path / "launch.py", *arguments])
    stand_in.wait(None, lambda: len(stand_in.alive()) == 2)
    launch.kill()
    launch.wait()
    stand_in.wait(None, lambda: not stand_in.alive(), seconds=60)


def test_workers_that_cannot_begin_end_the_launch_with_what_they_said(stand_in, capsys):
    with stand_in.begin("fail", workers=2) as workers:
        with pytest.raises(FilterSearchError, match=r"before they start any work; the last one said:\n") as refused:
            stand_in.wait(workers, lambda: False)
        assert str(refused.value).endswith(
            f"the worker on {socket.gethostname()} ended with exit status 1\nthere are no images\n"
        )
        assert not workers.running()
    assert len(stand_in.begun()) == 6
    assert "the others go on" in capsys.readouterr().err


def test_a_worker_that_worked_is_started_again_however_often_it_dies(stand_in):
    with stand_in.begin("wait", workers=1) as workers:
        for count in range(1, 5):
            stand_in.wait(workers, lambda count=count: len(stand_in.begun()) == count)
            (process,) = stand_in.alive()
            owner = f"{socket.gethostname()}:{process}:0a/{process + 1}"
            stand_in.owners.append(owner)
            os.kill(process, signal.SIGKILL)
        stand_in.wait(workers, lambda: len(stand_in.begun()) == 5)


def test_where_the_study_is_done_workers_are_not_started_again(stand_in):
    with stand_in.begin("be done", workers=3) as workers:
        stand_in.wait(workers, lambda: len(stand_in.begun()) == 3 and not workers.running())
        workers.tend(stand_in.storage)
    assert len(stand_in.begun()) == 3


def test_what_runs_on_a_lost_node_goes_on_elsewhere(stand_in):
    cluster = stand_in.cluster
    with stand_in.begin("wait") as workers:
        stand_in.wait(workers, lambda: len(stand_in.alive()) == 2)
        before = stand_in.alive()
        lost = cluster.add_node(num_cpus=1, **SMALL)
        stand_in.wait(workers, lambda: len(stand_in.alive()) == 3)  # it grows with the cluster
        there = stand_in.alive().keys() - before.keys()
        cluster.remove_node(lost, allow_graceful=False)
        stand_in.wait(workers, lambda: not any(map(is_alive, there)))
        assert stand_in.alive().keys() == before.keys()
        spare = cluster.add_node(num_cpus=1, **SMALL)
        stand_in.wait(workers, lambda: len(stand_in.alive()) == 3)
        assert stand_in.alive().keys() > before.keys()
    cluster.remove_node(spare)


TRIALS = 24
TINY = f"""
name: tiny
filters: {{stages: [{{low: 2, high: 16}}, {{low: 2, high: 16}}]}}
budgets: [params <= 300]
training: {{epochs: 4}}
search: {{trials: {TRIALS}, seeds_per_trial: 2}}
confirm: {{looks: [2], challengers: 1}}
soundness: {{learning_rate_runs: 0}}
compute: {{device: cpu, lease_seconds: 3}}
"""


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def node_of(process, cluster):
    """The node that a process runs on: the one whose raylet it descends from."""
    raylets = {each.process.pid: node for node in cluster.worker_nodes for each in node.all_processes["raylet"]}
    while process not in raylets:
        process = parent(process)
    return raylets[process]


def test_a_study_is_whole_though_it_loses_the_node_it_searches_on(ray_cluster, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    folder = tmp_path / "study"
    command = [sys.executable, "-m", "search", "run", "tiny.yaml", "--out", folder, "--launcher", "ray", "--json"]
    said = (tmp_path / "said").open("w+")
    launch = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"RAY_ADDRESS": ray_cluster.address}, stdout=said, stderr=said
    )

    def trials():
        return study.load(folder, "tiny").trials("search") if (folder / "config.yaml").exists() else []

    with said:
        try:
            deadline = time.monotonic() + 180  # workers import for long where others use the machine
            while not (done := [each for each in trials() if each.state is TrialState.COMPLETE]):
                assert launch.poll() is None, Path(said.name).read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            _, supervisor, _ = done[0].user_attrs["owner"].split(":")
            ray_cluster.remove_node(node_of(int(supervisor), ray_cluster), allow_graceful=False)
            ray_cluster.add_node(num_cpus=1, **SMALL)
            assert launch.wait(180) == 0, Path(said.name).read_text()
        finally:
            launch.kill()
            launch.wait()
    owners = {each.number: each.user_attrs["owner"].split(":")[1] for each in trials()}
    assert sorted(owners) == list(range(TRIALS))
    assert {each.state for each in trials()} == {TrialState.COMPLETE}
    assert set(owners.values()) > {supervisor}, "it had ended before its node was lost"
