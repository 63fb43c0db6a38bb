"""A study worked out before anything is trained: data, space, costs, rules fitted to budgets, trials to queue.

Everything that can be refused is refused here.
"""

from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from search.config import StudyConfig
from search.cost import Budget, CostModel
from search.data import ImageData, load
from search.errors import ConfigError
from search.networks import check_stages
from search.objective import Objective
from search.pricing import fit_cost_model
from search.rules import Fit, Rule, fit
from search.space import Space, no_schedule_message
from search.study import Proposal


@dataclass(frozen=True)
class StudyPlan:
    """What a configuration amounts to on its data.

    Attributes:
        config: The configuration.
        data: Images, labels and their splits.
        space: What may be sampled.
        cost_model: Prices schedules.
        judged: The rules judged, fitted to every budget.
        compared: The other rules likewise, where they have a member within the budget that lies in the space.
    """

    config: StudyConfig
    data: ImageData
    space: Space
    cost_model: CostModel
    judged: tuple[Fit, ...]
    compared: tuple[Fit, ...]

    @property
    def objective(self) -> Objective:
        """What a trial is worth; its reference is the first judged rule under the first budget."""
        return Objective(self.config.search, self.cost_model.costs(self.judged[0].schedule))

    @property
    def anchors(self) -> list[Fit]:
        """Rules to try first, judged ones first of all; of rules that agree under a budget only the first."""
        first = {(fitted.budget, fitted.schedule): fitted for fitted in reversed(self.judged + self.compared)}
        return [each for each in self.judged + self.compared if first[each.budget, each.schedule] is each]

    def rivals(self, fitted: Fit, rng: np.random.Generator) -> NDArray[np.int64]:
        """Schedules within a fitted rule's budget besides its own, shape `(n_schedules, n_stages)`."""
        pool = self.space.within(fitted.budget, self.cost_model, rng)
        others: NDArray[np.int64] = pool[(pool != np.array(fitted.schedule.filters)).any(axis=1)]
        return others

    def proposals(self) -> list[Proposal]:
        """The search's trials: the rules first, then the sampler's, aimed at the budgets in turn."""
        trials = self.config.search.trials
        ruled = [
            Proposal(str(fitted.rule), fitted.budget, self.space.params(fitted.schedule)) for fitted in self.anchors
        ]
        sampled = (Proposal(self.config.search.sampler, budget, {}) for budget in cycle(self.config.budgets))
        return [*ruled[:trials], *islice(sampled, max(0, trials - len(ruled)))]


def make_plan(config: StudyConfig) -> StudyPlan:
    """Work a study out.

    Raises:
        ConfigError: Too many stages for the images, a budget no schedule meets, or a judged rule that has no member
            within a budget, is alone in it, or needs filters outside the space.
        DataError: The data cannot be read or split.
    """
    data = load(config.data)
    space = Space.of(config.filters)
    check_stages(space.stages, data.image_shape)
    cost_model = fit_cost_model(
        config.network, data.image_shape, data.classes, config.training.batch_size, space.multiple, space.stages
    )
    smallest = cost_model.costs(space.smallest)
    for budget in config.budgets:
        if not budget.admits(smallest):
            raise ConfigError(no_schedule_message(space, budget, cost_model))

    def fitted(rule: Rule, budget: Budget) -> Fit | None:
        return fit(rule, budget, cost_model, space.stages, space.multiple)

    judged = [
        _check_judged(rule, budget, fitted(rule, budget), space)
        for rule in config.rules.judged
        for budget in config.budgets
    ]
    others = [fitted(rule, budget) for rule in config.rules.compared for budget in config.budgets]
    compared = [each for each in others if each is not None and each.schedule in space]
    plan = StudyPlan(config, data, space, cost_model, tuple(judged), tuple(compared))
    for each in judged:
        if not len(plan.rivals(each, np.random.default_rng(0))):
            msg = (
                f"{each.budget} admits no schedule besides {each.schedule}, the member of rule {each.rule}; raise the "
                "budget or widen filters.stages"
            )
            raise ConfigError(msg)
    return plan


def _check_judged(rule: Rule, budget: Budget, fitted: Fit | None, space: Space) -> Fit:
    if fitted is None:
        msg = f"rule {rule} has no member within {budget}; raise the budget or do not judge the rule there"
        raise ConfigError(msg)
    if fitted.schedule not in space:
        ranges = ", ".join(f"{r.low * space.multiple} to {r.high * space.multiple}" for r in space.ranges)
        msg = (
            f"rule {rule} fitted to {budget} is {fitted.schedule}, outside the stages' ranges ({ranges}); "
            "widen filters.stages to contain it"
        )
        raise ConfigError(msg)
    return fitted
