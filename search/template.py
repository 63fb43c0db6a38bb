"""The template: a process that has imported and planned what workers need, and forks them.

Torch and what hangs on it take seconds and some 400 MiB to import; the plan and the images come on top. Forked workers
share all of it. A template trains nothing, starts no thread and touches no GPU, so that what it forks is sound.
"""

import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

from search import configfile
from search.launch import MESSAGE, Event
from search.plan import StudyPlan, make_plan
from search.worker import end_with, heed_sigterm, work

_LOOK_SECONDS = 0.1  # how often it asks whether a worker has ended


def fork_workers(folder: Path, requests: socket.socket) -> None:
    """Fork a worker of the study in `folder` for every request, until SIGTERM has ended all of them.

    Whatever else ends this process ends its workers at once; so does the end of the coordinator.

    Args:
        folder: The study folder.
        requests: Its other end is the coordinator's. A request is a byte and the descriptor of a log; what becomes of
            the workers is said in `MESSAGE`s.
    """
    stopping = heed_sigterm()
    requests.set_inheritable(False)
    config = configfile.read(folder / "config.yaml")
    # A user's code may start threads or touch a GPU, neither of which a fork survives: each worker loads it itself.
    plan = None if config.network.factory or config.data.factory else make_plan(config)
    leash, hold = os.pipe()  # nobody else keeps `hold`, so the leash ends with this process
    workers: set[int] = set()
    told: set[int] = set()
    while workers or not stopping.is_set():
        if select.select([requests], [], [], _LOOK_SECONDS)[0]:
            request, logs, _, _ = socket.recv_fds(requests, 1, 1)
            if not request:
                os._exit(1)  # the coordinator has gone
            if not stopping.is_set():
                workers.add(worker := _fork(plan, folder, logs[0], leash, hold))
                requests.sendall(MESSAGE.pack(Event.STARTED, worker, 0))
            os.close(logs[0])
        if stopping.is_set():
            for worker in workers - told:
                os.kill(worker, signal.SIGTERM)
            told |= workers
        for worker in sorted(workers):  # by name: code of the user's may have children of its own
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                workers.remove(worker)
                told.discard(worker)
                requests.sendall(MESSAGE.pack(Event.ENDED, worker, os.waitstatus_to_exitcode(status)))


def _fork(plan: StudyPlan | None, folder: Path, log: int, leash: int, hold: int) -> int:
    """Start a worker that writes to a log; its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until whoever it is for heeds it
    worker = os.fork()
    if not worker:
        status = 1
        try:
            os.close(hold)
            os.dup2(log, 1)
            os.dup2(log, 2)
            end_with(leash)
            stopping = heed_sigterm()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            work(plan or make_plan(configfile.read(folder / "config.yaml")), folder, stopping)
            status = 0
        except BaseException:  # nothing may unwind into the template's own loop
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return worker


if __name__ == "__main__":
    fork_workers(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
