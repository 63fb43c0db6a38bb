"""Policies replayed on kept learning curves: what each spends, and what the search recommends after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from search.confirm import choose_cases
from search.plan import StudyPlan
from search.surrogate import Surrogate

FEWEST = 5
"""Finished trials before anything is compared, Optuna's own default."""


@dataclass(frozen=True)
class Curves:
    """The trials of one search in their order.

    Attributes:
        data: The configuration.
        seed: The study's.
        budgets: What each trial aims at.
        ruled: How many of the trials are rules, which come first.
        filters: Shape `(n_trials, n_stages)`.
        macs: Shape `(n_trials,)`.
        curve: Validation accuracy after each epoch, mean over seeds; shape `(n_trials, epochs)`.
        finals: By epochs of training, every run's validation accuracy at its end; each `(n_trials, seeds)`.
        seconds: Likewise what a trial took; each `(n_trials,)`.
    """

    data: str
    seed: int
    budgets: tuple[str, ...]
    ruled: int
    filters: np.ndarray
    macs: np.ndarray
    curve: np.ndarray
    finals: dict[int, np.ndarray]
    seconds: dict[int, np.ndarray]

    @property
    def epochs(self) -> int:
        return self.curve.shape[1]


@dataclass(frozen=True)
class Outcome:
    """What a policy left of a search.

    Attributes:
        scored: Numbers of the trials that were trained to the end.
        finals: Their runs' accuracies, shape `(len(scored), seeds)`.
        epochs: Epochs spent on each trial, times its runs; shape `(n_trials,)`.
        seconds: Seconds spent on each trial, shape `(n_trials,)`.
    """

    scored: np.ndarray
    finals: np.ndarray
    epochs: np.ndarray
    seconds: np.ndarray


Policy = Callable[[Curves], Outcome]


def everything(curves: Curves) -> Outcome:
    finals, every = curves.finals[curves.epochs], np.arange(len(curves.macs))
    spent = np.full(len(every), float(curves.epochs * finals.shape[1]))
    return Outcome(every, finals, spent, curves.seconds[curves.epochs])


def fewer_trials(share: float) -> Policy:
    """All rules, and the first of the sampler's proposals."""

    def policy(curves: Curves) -> Outcome:
        whole = everything(curves)
        kept = np.arange(len(curves.macs)) < curves.ruled + round(share * (len(curves.macs) - curves.ruled))
        return Outcome(whole.scored[kept], whole.finals[kept], whole.epochs * kept, whole.seconds * kept)

    return policy


def fewer_seeds(divisor: int) -> Policy:
    """A part of the seeds; seconds are those of all of them, since a pass of fewer was not timed here."""

    def policy(curves: Curves) -> Outcome:
        whole = everything(curves)
        seeds = max(1, whole.finals.shape[1] // divisor)
        share = seeds / whole.finals.shape[1]
        return replace(whole, finals=whole.finals[:, :seeds], epochs=whole.epochs * share)

    return policy


def briefer(share: float, then: Policy = everything) -> Policy:
    """All trials by the briefer training nearest to this share of the epochs, a one-cycle schedule of its own."""

    def policy(curves: Curves) -> Outcome:
        epochs = min(set(curves.finals) - {curves.epochs}, key=lambda each: abs(each - share * curves.epochs))
        return then(replace(curves, curve=curves.curve[:, :epochs]))  # read for its length only

    return policy


class Among:
    """What a pruner sees of a study: some of its trials."""

    def __init__(self, study: optuna.Study, trials: list[optuna.trial.FrozenTrial]) -> None:
        self._study, self._trials = study, trials

    def get_trials(self, deepcopy=True, states=None):
        return [trial for trial in self._trials if states is None or trial.state in states]

    def __getattr__(self, name):
        return getattr(self._study, name)


class AmongLike(BasePruner):
    """Compares a trial with those like it only, by a pruner made for it."""

    def __init__(self, inner: BasePruner, like: Callable) -> None:
        self._inner, self._like = inner, like

    def prune(self, study, trial) -> bool:
        finished = [each for each in study.get_trials(deepcopy=False) if each.state.is_finished()]
        return self._inner.prune(Among(study, self._like(trial, finished)), trial)


def same_budget(trial, finished):
    return [each for each in finished if each.user_attrs["budget"] == trial.user_attrs["budget"]]


def size_band(trial, finished):
    """The nearest half in log MACs, and no fewer than a comparison takes."""
    size = np.log(trial.user_attrs["macs"])
    nearest = sorted(finished, key=lambda each: (abs(np.log(each.user_attrs["macs"]) - size), each.number))
    return nearest[: max(FEWEST, len(nearest) // 2)]


def pruned(make: Callable[[int], BasePruner], like: Callable | None = None) -> Policy:
    """Trials stopped by a pruner made for so many epochs; what is stopped has no score."""

    def policy(curves: Curves) -> Outcome:
        whole, inner = everything(curves), make(curves.epochs)
        study = optuna.create_study(direction="maximize", pruner=AmongLike(inner, like) if like else inner)
        stopped = [_carry_out(study, *each) for each in zip(curves.curve, curves.macs, curves.budgets, strict=True)]
        share = np.array(stopped) / curves.epochs
        kept = np.array([trial.state is TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)])
        return Outcome(whole.scored[kept], whole.finals[kept], whole.epochs * share, whole.seconds * share)

    return policy


def _carry_out(study: optuna.Study, curve: np.ndarray, macs: float, budget: str) -> int:
    """Epochs a trial got."""
    trial = study.ask()
    trial.set_user_attr("macs", float(macs))
    trial.set_user_attr("budget", budget)
    for epoch, accuracy in enumerate(curve[:-1], start=1):
        trial.report(float(accuracy), epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    trial.report(float(curve[-1]), len(curve))
    study.tell(trial, float(curve[-1]))
    return len(curve)


def _median(share: float) -> Callable[[int], BasePruner]:
    return lambda epochs: MedianPruner(FEWEST, max(1, round(share * epochs)))


def _worst_quarter(epochs: int) -> BasePruner:
    return PercentilePruner(75, FEWEST, max(1, round(epochs / 3)))  # Optuna's percentage is of those it keeps


def _halving(share: float) -> Callable[[int], BasePruner]:
    """Stops about half of what reaches a rung; the first at this share of the epochs, the next at twice that."""
    return lambda epochs: SuccessiveHalvingPruner(min_resource=max(1, round(share * epochs)), reduction_factor=2)


POLICIES: dict[str, Policy] = {
    "all of it": everything,
    "median from 1/3 of the epochs": pruned(_median(1 / 3)),
    "median from 1/3, within a budget": pruned(_median(1 / 3), same_budget),
    "median from 1/3, within a size band": pruned(_median(1 / 3), size_band),
    "median from 2/3, within a size band": pruned(_median(2 / 3), size_band),
    "worst quarter from 1/3, within a size band": pruned(_worst_quarter, size_band),
    "halving at 1/4 and 1/2": pruned(_halving(0.25)),
    "halving at 1/4 and 1/2, within a size band": pruned(_halving(0.25), size_band),
    "halving at 1/2": pruned(_halving(8 / 15)),
    "halving at 1/2, within a budget": pruned(_halving(8 / 15), same_budget),
    "halving at 1/2, within a size band": pruned(_halving(8 / 15), size_band),
    "half the epochs": briefer(1 / 2),
    "a third of the epochs": briefer(1 / 3),
    "a third of the epochs, half the seeds": briefer(1 / 3, fewer_seeds(2)),
    "a third of the epochs, half the proposals": briefer(1 / 3, fewer_trials(0.5)),
    "half the seeds": fewer_seeds(2),
    "a quarter of the seeds": fewer_seeds(4),
    "half the proposals": fewer_trials(0.5),
    "no proposals, rules only": fewer_trials(0.0),
}
TRAINED = ("all of it", "halving at 1/2, within a size band", "a third of the epochs", "half the proposals")
"""Policies whose first choices are trained afresh."""


@dataclass(frozen=True)
class Recommended:
    """Whom the search lets challenge the rule under one budget, the surrogate's own first choice among them.

    Where too little was scored for a surrogate, the first rule takes its place.
    """

    budget: str
    rule: tuple[int, ...]
    first: tuple[int, ...]
    challengers: tuple[tuple[int, ...], ...]


def recommended(plan: StudyPlan, curves: Curves, outcome: Outcome) -> list[Recommended]:
    """What a study recommends after a policy, under every budget."""
    seeds = outcome.finals.shape[1]
    runs = np.repeat(curves.filters[outcome.scored], seeds, axis=0)
    known = ~np.isnan(outcome.finals.ravel())
    try:
        surrogate = Surrogate.fit(runs[known], outcome.finals.ravel()[known], curves.seed)
    except ValueError:  # too few were scored
        surrogate = None
    cases = choose_cases(plan, surrogate)
    found = []
    for case in cases:
        named = sorted(case.challengers, key=lambda each: each.origin != "surrogate")  # stable: the first in its order
        first = named[0].schedule.filters
        others = tuple(each.schedule.filters for each in case.challengers)
        found.append(Recommended(str(case.budget), case.schedule.filters, first, others))
    return found


def reference(searches: Sequence[Curves]) -> Surrogate:
    """What all runs of these searches say together."""
    filters = np.concatenate([np.repeat(each.filters, each.finals[each.epochs].shape[1], axis=0) for each in searches])
    finals = np.concatenate([each.finals[each.epochs].ravel() for each in searches])
    known = ~np.isnan(finals)
    return Surrogate.fit(filters[known], finals[known], seed=0)
