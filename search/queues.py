"""What a study's trials are queued for: candidates to try, confirmation jobs, probes; and what of it is still missing.

Whoever tends workers queues what is missing. Several may do so at once: each looks, and queues only if nobody else has
queued anything since.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Self

from optuna.trial import FrozenTrial, Trial

from search.cost import Budget
from search.evaluate import Fidelity, Split
from search.schedule import FilterSchedule
from search.study import Purpose, Queued, Storage, is_given_up


@dataclass(frozen=True)
class Proposal:
    """A trial to queue.

    Attributes:
        origin: The rule it is a member of, or the sampler that is to propose it.
        budget: The budget it aims at.
        params: Multiples of every stage; empty where a sampler is to propose them.
    """

    origin: str
    budget: Budget
    params: dict[str, int]


@dataclass(frozen=True)
class Probe:
    """Runs that ask whether a verdict is an artefact, to queue as one job.

    Attributes:
        schedule: What to train.
        first: Index of the first run; it settles the seeds.
        count: How many runs.
        split: What to score them on.
        epochs: How long to train.
        share: Share of the training split to train on.
        learning_rate_factor: What multiplies the learning rate.
    """

    schedule: FilterSchedule
    first: int
    count: int
    split: Split
    epochs: int
    share: float = 1.0
    learning_rate_factor: float = 1.0

    @classmethod
    def of(cls, job: FrozenTrial | Trial) -> Self:
        """What a job was queued for."""
        values = {field.name: job.user_attrs[field.name] for field in fields(cls) if field.name in job.user_attrs}
        return cls(**values | {"schedule": FilterSchedule.parse(values["schedule"])})

    @property
    def fidelity(self) -> Fidelity:
        """How its runs train."""
        return Fidelity(self.epochs, self.share, self.learning_rate_factor)


def enqueue_missing(storage: Storage, proposals: Sequence[Proposal]) -> None:
    """Queue a trial for every proposal that has none waiting, running or finished.

    What makes the number of trials exact: it mends a launch killed while it queued, and gives what was given up
    after crashes another chance.
    """
    while True:
        trials = storage.trials("search")
        live = {trial.user_attrs["proposal"] for trial in trials if not is_given_up(trial)}
        missing = [
            (proposal.params, {"proposal": index, "origin": proposal.origin, "budget": str(proposal.budget)})
            for index, proposal in enumerate(proposals)
            if index not in live
        ]
        if storage.queue("search", missing, len(trials)):
            return


def enqueue_given_up(storage: Storage) -> None:
    """Queue every confirmation job again that was given up."""
    while True:
        trials = storage.trials("confirm")
        latest = {_identity("confirm", trial): trial for trial in trials}.values()
        again = [confirmation(*_span(job)) for job in latest if is_given_up(job)]
        if storage.queue("confirm", again, len(trials)):
            return


def enqueue_probes(storage: Storage, probes: Sequence[Probe]) -> None:
    """Queue the probes that are not waiting, running or finished."""
    while True:
        trials = storage.trials("probe")
        live = {Probe.of(job) for job in trials if not is_given_up(job)}
        missing: list[Queued] = [
            ({}, asdict(probe) | {"schedule": str(probe.schedule)}) for probe in probes if probe not in live
        ]
        if storage.queue("probe", missing, len(trials)):
            return


def jobs(storage: Storage, purpose: Purpose) -> list[FrozenTrial]:
    """Every job once: of one that was given up and queued again only the later trial."""
    return list({_identity(purpose, trial): trial for trial in storage.trials(purpose)}.values())


def _identity(purpose: Purpose, trial: FrozenTrial) -> object:
    match purpose:
        case "search":
            return trial.user_attrs["proposal"]
        case "confirm":
            return _span(trial)
        case "probe":
            return Probe.of(trial)


def _span(job: FrozenTrial) -> tuple[str, int, int]:
    return job.user_attrs["schedule"], job.user_attrs["first"], job.user_attrs["count"]


def confirmation(schedule: str, first: int, count: int) -> Queued:
    """Confirmation runs `first` to `first + count - 1` of a schedule as one job, to be queued."""
    return {}, {"schedule": schedule, "first": first, "count": count}
