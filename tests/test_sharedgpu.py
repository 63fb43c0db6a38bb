import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from search.sharedgpu import SharedGpu


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gpu.lock"


@contextmanager
def another(path, how) -> Iterator[subprocess.Popen]:
    """A process that says so once it has the GPU, and keeps it until it is told to go on."""
    code = f"""
import sys
from pathlib import Path
from search.sharedgpu import SharedGpu

with SharedGpu(Path(sys.argv[1])).{how}():
    print("inside", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def inside(process):
    return process.stdout.readline() == "inside\n"


def is_waiting(process, path):
    """Whether the kernel lists it among those who wait for a lock of the file, within a minute."""
    inode, deadline = path.stat().st_ino, time.monotonic() + 60
    while time.monotonic() < deadline:
        locks = Path("/proc/locks").read_text().splitlines()
        if any("->" in lock and f" {process.pid} " in lock and f":{inode} " in lock for lock in locks):
            return True
        time.sleep(0.05)
    return False


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_train_beside_each_other(path):
    with another(path, "beside_others") as first, another(path, "beside_others") as second:
        assert inside(first)
        assert inside(second)


def test_who_is_to_be_alone_waits_for_the_others_and_nobody_enters_before(path):
    with another(path, "beside_others") as first:
        assert inside(first)
        with another(path, "alone") as alone:
            assert is_waiting(alone, path)
            with another(path, "beside_others") as late:
                assert is_waiting(late, path)
                go_on(first)
                assert inside(alone)
                assert is_waiting(late, path)
                go_on(alone)
                assert inside(late)


def test_a_process_that_dies_leaves_the_gpu(path):
    with another(path, "alone") as first:
        assert inside(first)
        with another(path, "beside_others") as second:
            assert is_waiting(second, path)
            first.kill()
            assert inside(second)


def test_a_link_in_the_place_of_the_file_is_not_followed(path):
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(OSError, match="symbolic links"):
        SharedGpu(path)
    assert not path.with_name("elsewhere").exists()


def test_the_cpu_is_shared_by_everyone():
    assert SharedGpu.of(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_process_on_a_gpu_means_the_same_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        with SharedGpu.of(torch.device("cuda", 0)).beside_others():
            assert torch.ones(1, device="cuda").item() == 1
    assert len(list(tmp_path.iterdir())) == 1
