"""What proposes the next candidate: Optuna samplers of our own, and Optuna's with their proposals made to fit.

A trial knows the budget it aims at, and its index among the study's proposals, before it is asked for, from the job
that queued it. Randomness is settled by the study's seed and that index, never by the worker that asks. `qmc`, `band`,
`macs` and `random` propose the same whatever has been scored; the others learn from the trials finished when they are
asked, so with several workers their proposals depend on who is done first.
"""

import zlib
from abc import abstractmethod
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from search.config import SamplerName, SearchConfig
from search.cost import Budget, CostModel
from search.memorylimit import fits, memory_limit
from search.schedule import FilterSchedule
from search.space import Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna's independent dimensions, in multiples."""
    return {
        name: IntDistribution(stage.low, stage.high, log=stage.scale == "log") for name, stage in space.dimensions()
    }


def make_sampler(search: SearchConfig, space: Space, cost_model: CostModel, seed: int) -> "AimedSampler":
    """The configured sampler."""
    return named_sampler(search.sampler, space, cost_model, seed)


def named_sampler(name: SamplerName, space: Space, cost_model: CostModel, seed: int) -> "AimedSampler":
    """The sampler of a name.

    Args:
        name: Which.
        space: What may be proposed.
        cost_model: Prices proposals.
        seed: The study's.
    """
    match name:
        case "qmc":
            return QMCSampler(space, cost_model, seed)
        case "band":
            return BandSampler(space, cost_model, seed)
        case "macs":
            return MacsSampler(space, cost_model, seed)
        case "tpe":
            return OptunaSampler(space, cost_model, seed, lambda trial_seed: TPESampler(seed=trial_seed))
        case "gp":
            return OptunaSampler(space, cost_model, seed, _make_gp)
        case "nsga2":
            return OptunaSampler(space, cost_model, seed, lambda trial_seed: NSGAIISampler(seed=trial_seed))
        case "random":
            return OptunaSampler(space, cost_model, seed, lambda trial_seed: RandomSampler(seed=trial_seed))


def _make_gp(seed: int) -> GPSampler:
    return GPSampler(seed=seed, warn_independent_sampling=False)  # a stage of one width has nothing to be modelled


_Kind = tuple[str, str]
"""Who proposes, and the budget aimed at."""


def _kind(trial: FrozenTrial) -> _Kind:
    return trial.user_attrs["origin"], trial.user_attrs["budget"]


class AimedSampler(BaseSampler):
    """Proposes schedules of the space that fit the budget the trial aims at, so that no proposal is ever refused.

    Args:
        space: What may be proposed.
        cost_model: Prices proposals.
        seed: The study's.
    """

    def __init__(self, space: Space, cost_model: CostModel, seed: int) -> None:
        self._space = space
        self._cost_model = cost_model
        self._seed = seed
        self._queued: dict[_Kind, list[int]] = {}
        """By origin and budget, the proposals queued, in their order."""

    @abstractmethod
    def _propose(self, study: Study, trial: FrozenTrial, budget: Budget) -> FilterSchedule:
        """A schedule within the budget.

        Raises:
            ConfigError: Even the smallest schedule of the space breaks the budget.
        """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions: they are proposed together."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Multiples of every stage."""
        budget = Budget.parse(trial.user_attrs["budget"])
        proposed = self._propose(study, trial, budget)
        limit = memory_limit(study)
        if not fits(self._cost_model.costs(proposed), limit):
            assert limit is not None  # else everything fits
            shape = np.array(proposed.filters, np.float64) / self._space.multiple
            proposed = self._space.scaled(shape, Budget("memory", limit - 1), self._cost_model)
        return self._space.params(proposed)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 # Optuna's signature
        """Never reached, since every dimension is proposed relatively.

        Raises:
            ValueError: A dimension that is not the space's was asked for.
        """
        msg = f"{param_name!r} is no dimension of this space"
        raise ValueError(msg)

    def _within(self, shape: NDArray[np.float64], budget: Budget) -> FilterSchedule:
        """The schedule of these multiples, shape `(n_stages,)`; scaled down where it breaks the budget."""
        filters = (np.floor(shape + 0.5).astype(np.int64) * self._space.multiple)[None]
        if self._cost_model.table(filters, budget.cost)[0] <= budget.limit:
            return FilterSchedule(tuple(map(int, filters[0])))
        return self._space.scaled(shape, budget, self._cost_model)

    def _sobol_shape(self, study: Study, trial: FrozenTrial) -> NDArray[np.float64]:
        """The next of a budget's own scrambled Sobol sequence, in multiples (Owen 1998, J. Complexity 14).

        Every budget counts its own proposals: of one sequence dealt to two budgets in turn, each would get one half
        of the first stage's widths.
        """
        entropy = [self._seed, zlib.crc32(trial.user_attrs["budget"].encode())]
        sequence = qmc.Sobol(self._space.stages, rng=np.random.default_rng(entropy))
        turn = self._turn(study, trial)
        if turn:  # by nothing, it fails
            sequence.fast_forward(turn)
        shape: NDArray[np.float64] = self._space.shapes(sequence.random(1))[0]
        return shape

    def _turn(self, study: Study, trial: FrozenTrial) -> int:
        """How many of the sampler's proposals that aim at the trial's budget come before it, whatever became of them.

        Proposals are queued in their order and never taken back, so what was counted once stays as it is.
        """
        kind, index = _kind(trial), trial.user_attrs["proposal"]
        if index > self._queued.get(kind, [-1])[-1]:
            queued = defaultdict(set)
            for other in study.get_trials(deepcopy=False):
                queued[_kind(other)].add(other.user_attrs["proposal"])
            self._queued = {each: sorted(found) for each, found in queued.items()}
        return bisect_left(self._queued[kind], index)


class QMCSampler(AimedSampler):
    """Proposes schedules spread evenly over the space, scaled down where they break the budget.

    What fits stays as it is, so the surrogate sees what lies inside the budget and not its edge alone, beyond which
    its intervals would be far too narrow (measured in tests/benchmarks/samplers.md).

    Not Optuna's sampler of that name, which numbers its points in the order of asking, so that a proposal would depend
    on who asks first and a trial asked for twice would move all later ones.
    """

    def _propose(self, study: Study, trial: FrozenTrial, budget: Budget) -> FilterSchedule:
        return self._within(self._sobol_shape(study, trial), budget)


class BandSampler(AimedSampler):
    """Proposes shapes spread evenly over the space, each scaled up or down until it just fits the budget."""

    def _propose(self, study: Study, trial: FrozenTrial, budget: Budget) -> FilterSchedule:
        return self._space.scaled(self._sobol_shape(study, trial), budget, self._cost_model)


class MacsSampler(AimedSampler):
    """Proposes what costs most: the schedules within the budget by falling MACs, from the first again when all were.

    Ranking by cost alone is hard to beat where accuracy goes with MACs, and learns nothing where it does not. Where
    the space is too large to be listed, it lists random proposals within the budget.
    """

    def __init__(self, space: Space, cost_model: CostModel, seed: int) -> None:
        super().__init__(space, cost_model, seed)
        self._by_macs = cache(self._sorted)

    def _propose(self, study: Study, trial: FrozenTrial, budget: Budget) -> FilterSchedule:
        listed = self._by_macs(budget)
        if not len(listed):
            return self._space.scaled(np.ones(self._space.stages), budget, self._cost_model)  # says what is wrong
        return FilterSchedule(tuple(map(int, listed[self._turn(study, trial) % len(listed)])))

    def _sorted(self, budget: Budget) -> NDArray[np.int64]:
        listed = self._space.within(budget, self._cost_model, np.random.default_rng(self._seed))
        order = np.argsort(-self._cost_model.table(listed, "macs"), kind="stable")
        return np.asarray(listed[order])


class OptunaSampler(AimedSampler):
    """Proposes what one of Optuna's samplers proposes, scaled down where it breaks the budget.

    The sampler is made anew for every trial, so that whoever asks gets the same, and sees in the finished trials what
    was trained and not what it had proposed. It must keep what it learns in the storage, as those of TPE, GP, NSGA-II
    and random search do.

    Args:
        space: What may be proposed.
        cost_model: Prices proposals.
        seed: The study's.
        make: Optuna's sampler for a seed.
    """

    def __init__(self, space: Space, cost_model: CostModel, seed: int, make: Callable[[int], BaseSampler]) -> None:
        super().__init__(space, cost_model, seed)
        self._make = make

    def _propose(self, study: Study, trial: FrozenTrial, budget: Budget) -> FilterSchedule:
        sequence = np.random.SeedSequence([self._seed, trial.user_attrs["proposal"]])
        sampler = self._make(int(sequence.generate_state(1)[0]))
        sampler.before_trial(study, trial)
        point = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        for name, distribution in distributions(self._space).items():
            if name not in point:
                point[name] = sampler.sample_independent(study, trial, name, distribution)
        shape = np.array([point[name] for name, _ in self._space.dimensions()], np.float64)
        return self._within(shape, budget)
