"""A study at one moment as an Optuna storage that cannot be written, under the numbers and ids of the real one.

Optuna's `InMemoryStorage` would copy every trial and number the copies anew, so that addresses and notes would point
elsewhere after each change.
"""

import copy
from collections.abc import Container, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

_REFUSED = "a mirror of a study cannot be changed; change the study"


class Mirror(BaseStorage):
    """Studies and their trials as they were when it was made.

    Args:
        studies: Each study with its trials in the order of their numbers.
    """

    def __init__(self, studies: Sequence[tuple[FrozenStudy, Sequence[FrozenTrial]]]) -> None:
        self._studies = {study._study_id: study for study, _ in studies}
        self._trials = {study._study_id: list(trials) for study, trials in studies}
        self._by_id = {trial._trial_id: trial for _, trials in studies for trial in trials}

    def get_all_studies(self) -> list[FrozenStudy]:
        """The studies, in the order given."""
        return list(self._studies.values())

    def get_study_id_from_name(self, study_name: str) -> int:
        """A study's id by its name."""
        for study_id, study in self._studies.items():
            if study.study_name == study_name:
                return study_id
        raise KeyError(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """A study's name."""
        return self._studies[study_id].study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """The direction of each of its values."""
        return self._studies[study_id].directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """What is told of a study."""
        return self._studies[study_id].user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """What the dashboard keeps of a study: its note and pictures."""
        return self._studies[study_id].system_attrs

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its id."""
        return self._by_id[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """A study's trials in the order of their numbers."""
        trials = [each for each in self._trials[study_id] if states is None or each.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def delete_study(self, study_id: int) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_study_user_attr(self, study_id: int, key: str, value: object) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_study_system_attr(self, study_id: int, key: str, value: object) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_trial_user_attr(self, trial_id: int, key: str, value: object) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> NoReturn:
        """Refused."""
        raise RuntimeError(_REFUSED)
