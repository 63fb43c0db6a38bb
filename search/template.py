"""The template: a process that has imported and planned what workers need, and forks them.

Torch and what hangs on it take seconds and some 400 MiB to import; the plan and the images come on top. Forked workers
share all of it. A template trains nothing, starts no thread and touches no GPU, so that what it forks is sound.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from search.errors import FilterSearchError
from search.lifeline import MESSAGE, Event, Stopping, end_with, end_with_parent

_LOOK_SECONDS = 0.1  # how often it asks whether a worker has ended

_Job = Callable[[Stopping], None]


def fork_workers(folder: Path, supervisor: str, requests: socket.socket) -> None:
    """Fork a worker of the study in `folder` for every request, until SIGTERM has ended all of them.

    Whatever else ends this process ends its workers at once; so does the end of the coordinator.

    Args:
        folder: The study folder; its configuration, as it is to be run here, comes on standard input.
        supervisor: Who tends the workers.
        requests: Its other end is the coordinator's. A request is a byte and the descriptor of a log; what becomes of
            the workers is said in `MESSAGE`s.
    """
    stopping = Stopping()
    requests.set_inheritable(False)
    leash, hold = os.pipe()  # nobody else keeps `hold`, so the leash ends with this process
    fork = partial(_fork, leash, hold)
    job = _prepare(folder, supervisor, fork, stopping)
    gc.collect()
    gc.freeze()  # else collections in a worker would write to, and so copy, all that it shares
    workers: set[int] = set()
    told: set[int] = set()
    while workers or not stopping.asked:
        if select.select([requests], [], [], _LOOK_SECONDS)[0]:
            request, logs, _, _ = socket.recv_fds(requests, 1, 1)
            if not request:
                os._exit(1)  # the coordinator has gone
            if not stopping.asked:
                workers.add(worker := fork(job, logs[0]))
                requests.sendall(MESSAGE.pack(Event.STARTED, worker, 0))
            os.close(logs[0])
        if stopping.asked:
            for worker in workers - told:
                os.kill(worker, signal.SIGTERM)
            told |= workers
        for worker in sorted(workers):  # by name: code of the user's may have children of its own
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                workers.remove(worker)
                told.discard(worker)
                requests.sendall(MESSAGE.pack(Event.ENDED, worker, os.waitstatus_to_exitcode(status)))


def _prepare(folder: Path, supervisor: str, fork: Callable[[_Job, int], int], stopping: Stopping) -> _Job:
    """What each worker is to do, with all that may be shared loaded and measured."""
    from search import configfile, database, fusing  # only now, when the end of the coordinator would be noticed
    from search.plan import make_plan
    from search.worker import measure, open_study, work

    config = configfile.parse(json.load(sys.stdin), "the configuration")
    if config.network.factory or config.data.factory:
        # A user's code may start threads or touch a GPU, neither of which survives a fork: each worker loads it.
        return lambda stopping: work(make_plan(config), folder, supervisor, stopping)
    plan = make_plan(config)
    if not _succeeds(fork(lambda _: measure(plan, folder), sys.stderr.fileno()), stopping):
        with database.guarded(folder):
            storage = open_study(plan, folder)
            fusing.decline(storage)
            storage.disconnect()
    return partial(work, plan, folder, supervisor)


def _succeeds(child: int, stopping: Stopping) -> bool:
    """Whether a forked process ends well; it is ended where it is no longer wanted, which is no failure of its own."""
    while not stopping.asked:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(_LOOK_SECONDS / 10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _fork(leash: int, hold: int, job: _Job, log: int) -> int:
    """Start a process that does a job and writes to a log; its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until whoever it is for heeds it
    child = os.fork()
    if not child:
        status = 1
        try:
            end_with_parent()
            os.setpgid(0, 0)  # so that what it starts can be ended with it
            os.close(hold)
            os.dup2(log, 1)
            os.dup2(log, 2)
            end_with(leash)
            stopping = Stopping()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            job(stopping)
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        except BaseException as error:  # nothing may unwind into the template's own loop
            status = _say(error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return child


def _say(error: BaseException) -> int:
    """Say what ends a process, for the coordinator's message; its exit status."""
    if isinstance(error, FilterSearchError):
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    traceback.print_exception(error)
    return 1


if __name__ == "__main__":
    end_with_parent()
    try:
        fork_workers(Path(sys.argv[1]), sys.argv[2], socket.socket(fileno=int(sys.argv[3])))
    except FilterSearchError as error:
        sys.exit(_say(error))
