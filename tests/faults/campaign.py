"""A study under fire: faults at random times and at every so many steps, then the invariants."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from faults import injections
from faults.injections import Inject
from faults.invariants import check, relaunch
from faults.studies import Ground
from faults.supervisors import Fleet
from faults.watch import Trials, Watch
from optuna.trial import FrozenTrial

from search.study import is_finished, is_given_up

WEIGHTS: Mapping[Inject, int] = {
    injections.kill_worker: 15,
    injections.kill_template: 2,
    injections.kill_supervisor: 1,
    injections.stop_worker: 2,
    injections.stop_supervisor: 2,
    injections.stop_family: 2,
    injections.terminate: 1,
    injections.interrupt: 1,
}
"""How often each comes; those after which a process is started again, which takes seconds, come seldom."""
SERVER_WEIGHTS = WEIGHTS | {injections.stop_server: 3, injections.crash_server: 3}

_BUSY_SECONDS, _STUDY_SECONDS, _MOST_RELAUNCHES = 300, 300, 3


@dataclass
class Outcome:
    """What was done to a study and what came of it.

    Attributes:
        what: The study, in words.
        kind: What kept it.
        injected: How often each fault was injected.
        wrong: What did not hold.
        ends: How many ends of trials were seen.
    """

    what: str
    kind: str
    injected: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ends: int = 0


def drawn(weights: Mapping[Inject, int], count: int, rng: np.random.Generator) -> list[Inject]:
    """Faults at random, as often as they weigh."""
    faults, shares = list(weights), np.array(list(weights.values()))
    return [faults[index] for index in rng.choice(len(faults), count, p=shares / shares.sum())]


def named(fault: Inject) -> str:
    """A fault, in words."""
    return fault.__name__.replace("_", " ")


def endure(
    what: str,
    at: Ground,
    trials: int,
    verbs: Sequence[str],
    faults: Sequence[Inject],
    rng: np.random.Generator,
    known: dict[str, str] | None = None,
    workers: int = 2,
) -> Outcome:
    """Run a study of which a configuration is written, break it by these faults until it is done, and check it.

    Every other fault comes after a random time, the others after a number of changes in the storage; a study that is
    done before its faults have come is spared the rest.

    Args:
        what: The study, in words.
        at: Where it is.
        trials: How many it is to have.
        verbs: A supervisor each, see `Fleet`.
        faults: In their order.
        rng: Of times, steps and victims.
        known: What other studies of the same truth gave.
        workers: Of each supervisor.
    """
    outcome, watch = Outcome(what, at.kind), Watch(at, known)
    with Fleet(at, verbs, workers, watch) as fleet:
        for number, fault in enumerate(faults):
            if not _reach_next(fleet, rng, by_step=bool(number % 2)):
                break
            outcome.injected[named(fault)] += fault(fleet, at, rng)
        fleet.see_out(_STUDY_SECONDS)
        outcome.wrong += fleet.wrong
    for _ in range(_MOST_RELAUNCHES):  # a job that was hit three times is put aside, which a resume mends
        if not missing(watch.look()):
            break
        relaunch(at)
    outcome.wrong += check(at, watch, trials)
    outcome.ends = len(watch.acknowledged.ends)
    return outcome


def _reach_next(fleet: Fleet, rng: np.random.Generator, *, by_step: bool) -> bool:
    """Wait for the next moment to break something; False where the study is done."""
    if by_step:
        step = fleet.watch.acknowledged.steps + int(rng.integers(1, 8))
        fleet.until(lambda: fleet.done or fleet.watch.acknowledged.steps >= step, _BUSY_SECONDS)
    else:
        fleet.wait(rng.exponential(0.7))
    return fleet.until(lambda: fleet.done or bool(fleet.busy() and fleet.running()), _BUSY_SECONDS) and not fleet.done


def missing(found: Trials) -> bool:
    """Whether jobs were put aside and not carried out since."""
    for trials in found.values():
        done = {_job(trial) for trial in trials if is_finished(trial)}
        if {_job(trial) for trial in trials if is_given_up(trial)} - done:
            return True
    return False


def _job(trial: FrozenTrial) -> tuple[object, ...]:
    """What a trial was queued for, a candidate's schedule apart, which is known only once it is tried."""
    told = trial.user_attrs
    named = () if "proposal" in told else (told["schedule"],)
    return (*named, *(told.get(key) for key in ("proposal", "first", "count", "split", "epochs", "share")))
