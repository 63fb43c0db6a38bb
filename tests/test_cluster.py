"""The files in `configs/cluster/`: each can be applied as it stands, but for what it says is your own."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer
import yaml

from search import cli, configfile

FOLDER = Path(__file__).parents[1] / "configs" / "cluster"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
SLURM = FOLDER / "slurm-workers.sh"
VERBS = typer.main.get_command(cli.app).commands
WORKER = """#!/bin/bash
echo "$@" > began
for number in USR1 TERM; do trap "sleep 0.5; echo $number > heard; exit 143" $number; done
until [ -e done ]; do sleep 0.05; done
exit $(cat done)
"""
AT_A_LONG_JOB = """#!/bin/bash
trap "trap 'echo dropped > heard; exit 143' USR1" USR1
echo "$@" > began
until [ -e done ]; do sleep 0.05; done
"""
HANGING = """#!/bin/bash
trap "" USR1
echo $$ > began
until [ -e done ]; do sleep 0.05; done
"""


def manifests(path):
    return list(yaml.safe_load_all(path.read_text()))


def found(value, key):
    """Every value of a key, however deep."""
    if isinstance(value, dict):
        yield from (value[each] for each in value if each == key)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from found(inner, key)


def commands(manifest):
    """The command lines of ours that a manifest has, as lists."""
    for container in found(manifest, "containers"):
        for each in container:
            words = [*each.get("command", ()), *each.get("args", ())]
            yield from ([shlex.split(words[2].rpartition("exec ")[2])] if words[:2] == ["sh", "-c"] else [words])
    yield from map(shlex.split, found(manifest, "entrypoint"))


def accept(words):
    """Have the command's own parser read a command line.

    Raises:
        UsageError: It has no such verb, option or argument.
    """
    assert words[0] == "filter-search"
    return VERBS[words[1]].make_context(words[1], list(words[2:])).params


def test_there_is_one_for_every_cluster_the_page_names():
    page = (FOLDER.parents[1] / "docs" / "howto" / "cluster.md").read_text()
    assert {path.name for path in FOLDER.iterdir()} == set(re.findall(r"configs/cluster/([\w.-]+)`", page))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_a_manifest_runs_is_a_command(path):
    ours = [words for each in manifests(path) for words in commands(each) if words]
    assert {words[1] for words in ours} == {"kubernetes-workers": {"run", "worker"}, "rayjob": {"run"}}[path.stem]
    for words in ours:
        accept(words)
    with pytest.raises(Exception, match="No such option"):
        accept([*ours[0], "--fast"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_a_manifest_refers_to_is_in_it(path):
    every = manifests(path)
    named = {(each["kind"], each["metadata"]["name"]): each for each in every}
    assert len(named) == len(every)
    for key in found(every, "secretKeyRef"):
        assert key["key"] in named["Secret", key["name"]]["stringData"]
    assert {each["name"] for each in found(every, "configMap")} == {"filter-search-study"}
    assert {each["claimName"] for each in found(every, "persistentVolumeClaim")} == {"filter-search-results"}
    assert {("ConfigMap", "filter-search-study"), ("PersistentVolumeClaim", "filter-search-results")} <= set(named)
    for pod in found(every, "template"):
        volumes = {each["name"] for each in pod["spec"].get("volumes", ())}
        assert volumes == {each["name"] for mounts in found(pod, "volumeMounts") for each in mounts}
        assert {each["name"] for each in pod["spec"]["containers"]} == {"filter-search"}
    variables = {each["name"] for env in found(every, "env") for each in env}
    assert variables - {"RAY_USAGE_STATS_ENABLED"} == {"FILTER_SEARCH_STORAGE"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_study_in_a_manifest_can_be_read_where_it_is_mounted(path, tmp_path):
    (study,) = (each["data"] for each in manifests(path) if each["kind"] == "ConfigMap")
    (tmp_path / "config.yaml").write_text(study["config.yaml"])
    config = configfile.read(tmp_path / "config.yaml")
    runs = [accept(words) for each in manifests(path) for words in commands(each) if words and words[1] == "run"]
    assert [(str(each["config"]), str(each["out"]), each["resume"]) for each in runs] == [
        ("/study/config.yaml", f"/studies/{config.name}", True)
    ]


def test_every_option_of_the_slurm_script_is_a_workers():
    (line,) = re.findall(r"^filter-search worker .*(?= &$)", SLURM.read_text(), re.M)
    assert accept(shlex.split(line.replace("${SLURM_CPUS_PER_TASK:-1}", "1")))["workers"] == 1


@pytest.fixture
def begin(tmp_path):
    """Begins a task of the array, with this worker and this script; back once the worker has begun."""
    started = []

    def begin(worker=WORKER, script=SLURM):
        (tmp_path / "bin").mkdir()
        for name, content in (("filter-search", worker), ("scontrol", '#!/bin/bash\necho "$@" > requeued\n')):
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)
        given = {"STUDY": "studies/a study", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
        environment = os.environ | given | {"SLURM_JOB_ID": "10", "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
        started.append(subprocess.Popen(["bash", script], cwd=tmp_path, env=environment))
        deadline = time.monotonic() + 20
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return started[0]

    yield begin
    (tmp_path / "done").touch()
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def task(begin):
    return begin()


@pytest.fixture
def impatient(tmp_path):
    """The script, with a second in the place of minutes."""
    content = SLURM.read_text()
    times = {name: int(seconds) for name, seconds in re.findall(r"^(last|drop)=(\d+)$", content, re.M)}
    (notice,) = re.findall(r"--signal=B:USR1@(\d+)", content)
    assert 0 < sum(times.values()) < int(notice) - 20, "the rest is for the task to queue itself again"
    script = tmp_path / "impatient.sh"
    script.write_text(re.sub(r"^(last|drop)=\d+$", r"\1=1", content, flags=re.M))
    return script


@pytest.mark.parametrize(
    ("worker", "heard"), [(AT_A_LONG_JOB, "dropped\n"), (HANGING, None)], ids=["drops it", "hangs"]
)
def test_a_slurm_task_whose_job_is_too_long_is_queued_again_without_it(begin, impatient, tmp_path, worker, heard):
    task = begin(worker, impatient)
    task.send_signal(signal.SIGUSR1)
    assert task.wait(20) == 0
    assert (tmp_path / "requeued").read_text() == "requeue 7_3\n"
    assert ((tmp_path / "heard").read_text() if heard else None) == heard


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, "requeue 7_3\n"), (signal.SIGTERM, None)])
def test_a_slurm_task_drains_its_worker_and_is_queued_again_if_its_time_is_up(task, tmp_path, number, requeued):
    time.sleep(0.2)  # for the worker to set its traps
    task.send_signal(number)
    status = task.wait(20)
    assert (tmp_path / "heard").read_text().strip() == number.name.removeprefix("SIG")
    again = tmp_path / "requeued"
    assert (again.read_text() if again.exists() else None) == requeued
    assert status == (0 if requeued else 143)


@pytest.mark.parametrize("status", [0, 4])
def test_a_slurm_task_ends_as_its_worker_does(task, tmp_path, status):
    assert (tmp_path / "began").read_text() == "worker studies/a study --workers 1\n"
    (tmp_path / ".done").write_text(str(status))
    (tmp_path / ".done").rename(tmp_path / "done")
    assert task.wait(20) == status
    assert not (tmp_path / "requeued").exists()


def test_a_slurm_task_without_a_study_says_what_is_missing():
    done = subprocess.run(["bash", SLURM], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "name the study folder: sbatch --export=ALL,STUDY=" in done.stderr
