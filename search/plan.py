"""A study worked out before anything is trained: data, space, costs, rules fitted to budgets, trials to queue.

Everything that can be refused is refused here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from search.apart import Calls, here
from search.config import StudyConfig
from search.cost import Budget, CostModel, exact_amount
from search.data import ImageData, check_augment
from search.errors import ConfigError
from search.known import open_table
from search.objective import Objective
from search.pricing import price_space
from search.queues import Proposal
from search.rules import Fit, Rule, fit
from search.schedule import FilterSchedule
from search.sources import load
from search.space import Space, no_schedule_message
from search.splits import Splits
from search.study import Purpose, run_seeds
from search.table import Columns, TableEvaluator


@dataclass(frozen=True)
class StudyPlan:
    """What a configuration amounts to on its data.

    Attributes:
        config: The configuration.
        source: What candidates are scored on: images to train on, or a table in training's place.
        space: What may be sampled.
        cost_model: Prices schedules.
        judged: The rules judged, fitted to every budget.
        compared: The other rules likewise, where they have a member within the budget that lies in the space.
    """

    config: StudyConfig
    source: ImageData | TableEvaluator
    space: Space
    cost_model: CostModel
    judged: tuple[Fit, ...]
    compared: tuple[Fit, ...]

    @property
    def data(self) -> ImageData:
        """The images, where candidates are trained.

        Raises:
            ConfigError: A table stands in training's place.
        """
        if isinstance(self.source, TableEvaluator):
            msg = (
                f"this study looks accuracies up in {self.source.name} and trains nothing, so it has neither images "
                "nor weights; train a schedule by a study with data in place of table"
            )
            raise ConfigError(msg)
        return self.source

    @property
    def exhaustive(self) -> bool:
        """Whether every schedule is compared at its known accuracy, with no trials and no runs."""
        return self.config.table is not None and self.config.table.exhaustive

    @property
    def objective(self) -> Objective:
        """What a trial is worth; its reference is the first judged rule under the first budget."""
        return Objective(self.config.search, self.cost_model.costs(self.judged[0].schedule))

    @property
    def anchors(self) -> list[Fit]:
        """Rules to try first, judged ones first of all; of rules that agree under a budget only the first."""
        first = {(fitted.budget, fitted.schedule): fitted for fitted in reversed(self.judged + self.compared)}
        return [each for each in self.judged + self.compared if first[each.budget, each.schedule] is each]

    def others(
        self, budget: Budget, schedules: Sequence[FilterSchedule], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Schedules within a budget besides these, shape `(n_schedules, n_stages)`."""
        pool = self.space.within(budget, self.cost_model, rng)
        for schedule in schedules:
            pool = pool[(pool != np.array(schedule.filters)).any(axis=1)]
        return pool

    def proposals(self) -> list[Proposal]:
        """The trials: rules first, then the sampler's, aimed at the budgets in turn. An exhaustive table has none."""
        if self.exhaustive:
            return []
        trials = self.config.search.trials
        ruled = [
            Proposal(str(fitted.rule), fitted.budget, self.space.params(fitted.schedule)) for fitted in self.anchors
        ]
        sampled = (Proposal(self.config.search.sampler, budget, {}) for budget in cycle(self.config.budgets))
        return [*ruled[:trials], *islice(sampled, max(0, trials - len(ruled)))]

    def seeds(self, purpose: Purpose, schedule: FilterSchedule, first: int, count: int) -> list[int]:
        """Seeds of runs `first` to `first + count - 1` of a schedule; of a table with several columns, the columns."""
        if isinstance(self.source, TableEvaluator) and isinstance(self.source.draw, Columns):
            return self.source.draw.seeds("validation" if purpose == "search" else "test", first, count)
        return run_seeds(self.config.seed, purpose, schedule, first, count)


def make_plan(config: StudyConfig, call: Calls = here) -> StudyPlan:
    """Work a study out.

    Args:
        config: The configuration.
        call: Who prices networks, which takes torch.

    Raises:
        ConfigError: Too many stages for the images, a budget no schedule meets, a judged rule that has no member
            within a budget, is alone in it, or needs filters outside the space, or a table that does not answer what
            is asked.
        DataError: The data or the table cannot be read or split.
    """
    space = Space.of(config.filters)
    opened = open_table(config, config.table, space, call) if config.table else _open_data(config, space, call)
    source, cost_model = opened
    for rule in config.rules.judged + config.rules.compared:
        if rule.filters and len(rule.filters) != space.stages:
            msg = f"rule {rule} has {len(rule.filters)} stages, the space {space.stages}; name all stages of it"
            raise ConfigError(msg)
    smallest = cost_model.costs(space.smallest)
    for budget in config.budgets:
        if not budget.admits(smallest):
            raise ConfigError(no_schedule_message(space, budget, cost_model))

    def fitted(rule: Rule, budget: Budget) -> Fit | None:
        return fit(rule, budget, cost_model, space.stages, space.multiple)

    judged = [
        _check_judged(rule, budget, fitted(rule, budget), space, cost_model)
        for rule in config.rules.judged
        for budget in config.budgets
    ]
    others = [fitted(rule, budget) for rule in config.rules.compared for budget in config.budgets]
    compared = [each for each in others if each is not None and each.schedule in space]
    plan = StudyPlan(config, source, space, cost_model, tuple(judged), tuple(compared))
    for each in judged:
        # Any other member stands beside the smallest schedule, which every budget was just seen to admit.
        alone = each.schedule == space.smallest
        if alone and not len(plan.others(each.budget, [each.schedule], np.random.default_rng(0))):
            msg = (
                f"{each.budget.in_words} admits no schedule besides {each.schedule}, the member of rule "
                f"{each.rule}; raise the budget or widen filters.stages"
            )
            raise ConfigError(msg)
    return plan


def _open_data(config: StudyConfig, space: Space, call: Calls) -> tuple[ImageData, CostModel]:
    data = load(config.data)
    check_augment(config.training.augment, data)
    training = Splits(data, config.data).train_validation(0, config.training.share).training
    batch_size = config.training.batch_of(len(training))
    return data, call(price_space, config.network, data.image_shape, data.classes, batch_size, space)


def _check_judged(rule: Rule, budget: Budget, fitted: Fit | None, space: Space, cost_model: CostModel) -> Fit:
    if fitted is None:
        msg = f"rule {rule} has no member within {budget.in_words}; raise the budget or do not judge the rule there"
        raise ConfigError(msg)
    if fitted.schedule not in space:
        most = cost_model.costs(space.largest)
        if budget.admits(most):
            msg = (
                f"budget {budget.in_words} admits every schedule, so it limits nothing: the largest, {space.largest}, "
                f"costs {exact_amount(budget.cost, most[budget.cost])}; lower the budget below that, or raise the "
                "stages' high"
            )
            raise ConfigError(msg)
        ranges = ", ".join(f"{r.low * space.multiple} to {r.high * space.multiple}" for r in space.ranges)
        msg = (
            f"rule {rule} fitted to {budget.in_words} is {fitted.schedule}, outside the stages' ranges "
            f"({ranges}); widen filters.stages to contain it, or lower the budget"
        )
        raise ConfigError(msg)
    return fitted
