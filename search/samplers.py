"""What proposes the next candidate: Optuna samplers, the default one of our own.

A trial knows the budget it aims at before it is asked for, from the job that queued it.
"""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.config import SearchConfig
from search.cost import Budget, CostModel
from search.space import Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna's independent dimensions, in multiples."""
    return {
        name: IntDistribution(stage.low, stage.high, log=stage.scale == "log") for name, stage in space.dimensions()
    }


def make_sampler(search: SearchConfig, space: Space, cost_model: CostModel, seed: int) -> BaseSampler:
    """The configured sampler."""
    match search.sampler:
        case "band":
            return BandSampler(space, cost_model, seed)


class BandSampler(BaseSampler):
    """Proposes a random shape, scaled until it just fits the budget the trial aims at.

    A proposal depends on the seed and its index among the study's proposals alone, so it is the same whoever asks and
    in what order.

    Args:
        space: What may be proposed.
        cost_model: Prices proposals.
        seed: The study's.
    """

    def __init__(self, space: Space, cost_model: CostModel, seed: int) -> None:
        self._space = space
        self._cost_model = cost_model
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions: they are proposed together."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Multiples of every stage."""
        rng = np.random.default_rng([self._seed, trial.user_attrs["proposal"]])
        return self._space.params(self._space.propose(Budget.parse(trial.user_attrs["budget"]), self._cost_model, rng))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 # Optuna's signature
        """Never reached, since every dimension is proposed relatively.

        Raises:
            ValueError: A dimension that is not the space's was asked for.
        """
        msg = f"{param_name!r} is no dimension of this space"
        raise ValueError(msg)
