"""What a study tries and where its accuracies come from, in plain words: the network, or the table in its place."""

from collections.abc import Sequence

from search.networkconfig import NetworkConfig
from search.tableconfig import TableConfig
from search.wording import counted, percent, points, ratio


def network_text(network: NetworkConfig, stages: int) -> str:
    """The family with what shapes it: `residual, 3 stages, 2 blocks each, small stem`."""
    said = [network.family if network.factory is None else network.factory, counted(stages, "stage")]
    if network.factory is None:
        blocks = network.blocks_per_stage
        said.append(f"{counted(blocks, 'block')} each" if isinstance(blocks, int) else f"blocks {_dashed(blocks)}")
        said.append(f"{network.stem} stem")
    if network.strides is not None:
        said.append(f"strides {_dashed(network.strides)}")
    return ", ".join(said)


def _dashed(values: Sequence[int]) -> str:
    return "-".join(map(str, values))


def table_text(table: TableConfig) -> str:
    """What stands in training's place, and what a run of it is."""
    if table.surface is not None:
        planted = table.surface
        source = (
            f"a planted surface, best at growth ratio {ratio(planted.best_ratio)} (strength {planted.strength:g}, "
            f"size gain {planted.size_gain:g}, accuracy {percent(planted.accuracy)})"
        )
    else:
        source = str(table.path)
    if table.exhaustive:
        return f"{source}; all of it is compared, without noise"
    if table.noise_sd is None:
        return f"{source}; runs are its {len(table.columns.accuracy)} accuracy columns"
    spread = f", unequal by a factor of {table.noise_spread:g} either way" if table.noise_spread > 1 else ""
    return f"{source}; runs are its accuracies with noise of sd {points(table.noise_sd)}{spread}"
