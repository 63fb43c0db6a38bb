"""What did not fit in memory, so that nothing as large is tried again.

A training that runs out of memory is a result: its candidate's predicted memory bounds what this study can train, for
sampler, workers and confirmation alike.
"""

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import TrialState

from search.cost import CostModel, Costs

DID_NOT_FIT = "did_not_fit"
"""User attribute of a trial or job that ran out of memory: predicted bytes of a single run."""


def memory_limit(*studies: Study) -> int | None:
    """The smallest predicted memory that did not fit in any of these studies, in bytes; None where all fitted."""
    failed = [trial for study in studies for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))]
    return min((trial.user_attrs[DID_NOT_FIT] for trial in failed if DID_NOT_FIT in trial.user_attrs), default=None)


def fits(costs: Costs, limit: int | None) -> bool:
    """Whether a candidate is smaller than what did not fit; what is not known is assumed to fit."""
    return limit is None or costs.memory is None or costs.memory < limit


def fitting(filters: NDArray[np.int64], cost_model: CostModel, limit: int | None) -> NDArray[np.int64]:
    """The schedules, rows of shape `(n_schedules, n_stages)`, that are smaller than what did not fit."""
    return filters if limit is None else filters[cost_model.table(filters, "memory") < limit]
