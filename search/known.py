"""Opens the table a configuration puts in training's place, and refuses what it cannot answer.

Everything that a table lacks is said here, before anything starts.
"""

from pathlib import Path

import numpy as np

from search.apart import Calls
from search.config import StudyConfig
from search.cost import COST_NAMES, CostModel
from search.errors import ConfigError
from search.pricing import price_space
from search.space import LARGEST_ENUMERATION, Space
from search.table import Columns, Noise, Surface, Table, TableCosts, TableEvaluator
from search.tableconfig import TableConfig
from search.tablefile import read_table


def open_table(config: StudyConfig, table: TableConfig, space: Space, call: Calls) -> tuple[TableEvaluator, CostModel]:
    """What answers in training's place, and what schedules cost.

    Args:
        config: The configuration.
        table: Its table.
        space: What may be sampled; all of it has to be known.
        call: Who prices networks, where the table does not.

    Raises:
        ConfigError: The table does not hold the whole space, lacks a cost that is asked for or columns for all runs,
            or the space is too large to be looked at whole.
        DataError: The file cannot be read, or is no table.
    """
    images, family = table.images, None
    if images is not None:
        family = call(price_space, config.network, images.shape, images.classes, images.batch_size, space)
    truth: Table | Surface
    if table.path is not None:
        truth = read_table(Path(table.path), table.columns, table.percent)
        _check_space(truth, space)
        cost_model: CostModel = TableCosts(truth, family)
    else:
        assert table.surface is not None  # both checked by TableConfig
        assert family is not None
        truth, cost_model = Surface(table.surface), family
    if isinstance(truth, Table) and family is not None and set(truth.costs) == set(COST_NAMES):
        msg = f"{table.path} tells every cost, so table.images has no use; leave it out"
        raise ConfigError(msg)
    _check_costs(config, cost_model, space)
    if table.exhaustive and space.size > LARGEST_ENUMERATION:
        msg = (
            f"the space has {space.size:,} schedules, and table.exhaustive looks at all of up to "
            f"{LARGEST_ENUMERATION:,}; narrow filters.stages"
        )
        raise ConfigError(msg)
    return TableEvaluator(truth, _draw(config, table), table.seconds_per_run), cost_model


def _draw(config: StudyConfig, table: TableConfig) -> Noise | Columns:
    if table.exhaustive or len(table.columns.accuracy) == 1:
        return Noise(table.noise_sd or 0.0, table.noise_spread)
    return Columns.split(
        len(table.columns.accuracy), config.search.seeds_per_trial, config.confirm.looks[-1], config.seed
    )


def _check_space(table: Table, space: Space) -> None:
    """Refuse a space that the table does not hold whole."""
    filters = table.filters
    known = 0
    if filters.shape[1] == space.stages:
        low, high = ([getattr(r, end) * space.multiple for r in space.ranges] for end in ("low", "high"))
        known = int(((filters >= low) & (filters <= high) & (filters % space.multiple == 0)).all(axis=1).sum())
    if known < space.size:
        ends = zip(filters.min(axis=0).tolist(), filters.max(axis=0).tolist(), strict=True)
        stages = ", ".join(f"{{low: {low}, high: {high}}}" for low, high in ends)
        msg = (
            f"filters allow {space.size:,} schedules of {space.stages} stages, and {table.name} holds {known:,} of "
            f"them; it spans {{multiple: {int(np.gcd.reduce(filters, axis=None))}, stages: [{stages}]}}: set filters "
            "to this, or to a part of it that the table holds whole"
        )
        raise ConfigError(msg)


def _check_costs(config: StudyConfig, cost_model: CostModel, space: Space) -> None:
    """Refuse budgets and objectives on costs that are not known."""
    known = cost_model.costs(space.smallest).known
    needs = {f"budget {budget}": {budget.cost} for budget in config.budgets}
    if config.search.objective != "constrained":
        needs[f"objective {config.search.objective}"] = {"params", "memory"}
    if config.search.sampler == "macs":
        needs["sampler macs"] = {"macs"}
    for what, costs in needs.items():
        for cost in sorted(costs.difference(known)):
            msg = (
                f"{what} needs {cost}, which the table does not tell (it tells {', '.join(known) or 'no cost'}); name "
                "its column in table.columns, or give table.images to price it by the network"
            )
            raise ConfigError(msg)
