"""What the filters of a budget's best network and of the rule's see: looked at while there are weights, kept as files.

Owns `figures/filters-<budget>` and `best/<budget>/filters.json`, from which the report is written again without
training, and the sentences on them. How it is measured is in `filtersight`, what it looks like in `sightfigures`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.activity import normalised, rebuilt
from search.cost import Budget
from search.device import choose_device
from search.drawing import BLUE, VERMILLION, to_png, to_svg
from search.errors import ConfigError
from search.evaluate import Evaluate, Failed, Fidelity, Run
from search.filtersight import PATCHES, NetworkSight, Unseen, look
from search.findings import Finding, Findings, by_budget
from search.folder import make, write_json, write_whole
from search.plan import StudyPlan
from search.schedule import FilterSchedule
from search.sightfigures import TILES, Shown, filters
from search.splits import Splits
from search.study import run_seeds
from search.wording import capital, listed, short_budget

_IMAGES_STREAM = 9
"""First word of the entropy of which images are looked at; `augment` lists all such words."""
_MOST_IMAGES, _MOST_NUMBERS = 2000, 2**27
"""Images looked at, fewer where they are so large that those hold more numbers (half a gigabyte)."""

CAUTION = (
    "One brief training of each network, by one seed: another seed learns other filters. The number in effect counts "
    "directions of variation, so it is low where a few filters are loud, though quiet ones may matter. It illustrates "
    "the verdict and is no evidence for it."
)
"""What must be said beside the picture, lest more is read into it than is there."""


@dataclass(frozen=True)
class StageInUse:
    """One stage of a network.

    Attributes:
        filters: How many it has.
        effective: How many are in effect; see `activity.effective_number`.
        dead: How many have the same output everywhere.
        receptive_field: Height and width of what a unit sees, pixels, at most the image's.
    """

    filters: int
    effective: float
    dead: int
    receptive_field: tuple[int, int]


@dataclass(frozen=True)
class SeenNetwork:
    """A network that was looked into.

    Attributes:
        schedule: Its filters.
        best: Whether it is the best confirmed.
        rule: The rule it is the member of; None for the best where that is another.
        seed: Of its training.
        images: Validation images looked at.
        stages: What each stage has in use; none where it cannot be looked into.
        unseen: Why not, in a clause; None where it can.
    """

    schedule: FilterSchedule
    best: bool
    rule: str | None
    seed: int
    images: int
    stages: tuple[StageInUse, ...]
    unseen: str | None = None

    @property
    def title(self) -> str:
        """`best confirmed: 12-6-10`, `doubling: 4-7-15`."""
        roles = ["best confirmed"] * self.best + [str(self.rule)] * (self.rule is not None)
        return f"{', itself '.join(roles)}: {self.schedule}"


@dataclass(frozen=True)
class BudgetSight:
    """What the filters of one budget's networks see.

    Attributes:
        budget: The budget.
        networks: The best and the rule's, or one that is both.
    """

    budget: Budget
    networks: tuple[SeenNetwork, ...]

    @property
    def figure(self) -> str | None:
        """Name of the figure below `figures/`, without its ending; None where no network could be looked into."""
        return _figure(self.budget) if any(each.stages for each in self.networks) else None


def train_rule(plan: StudyPlan, findings: Findings, budget: Budget, evaluate: Evaluate) -> Run | None:
    """Train the rule's network of a budget as its best is trained for export, by its own first confirmation seed.

    Args:
        plan: The study.
        findings: What it says; the rule is the first judged under the budget.
        budget: One of those that had their first look.
        evaluate: Trains.

    Returns:
        A run with weights, or one that failed; None where the rule's schedule is itself the best.
    """
    rule = _finding(findings, budget).case.schedule
    if rule == by_budget(findings.findings)[budget].schedule:
        return None
    seed = run_seeds(plan.config.seed, "confirm", rule, 0, 1)[0]
    (run,) = evaluate(rule, [seed], Fidelity.brief(plan.config.training), "test", keep_weights=True)
    return run


def write_sight(
    plan: StudyPlan, findings: Findings, folder: Path, budget: Budget, best: Run, rule: Run | None
) -> BudgetSight:
    """Look into a budget's networks and write what is seen: the figure as PNG and SVG, then `filters.json`.

    Args:
        plan: The study.
        findings: What it says.
        folder: Its folder.
        budget: The budget.
        best: The best schedule's run for export, with weights.
        rule: What `train_rule` returned.

    Raises:
        StorageError: A file cannot be written.
    """
    case, schedule = _finding(findings, budget).case, by_budget(findings.findings)[budget].schedule
    looked = [_look(plan, schedule, best, True, str(case.rule) if rule is None else None)]
    if rule is not None:
        looked.append(_look(plan, case.schedule, rule, False, str(case.rule)))
    sight = BudgetSight(budget, tuple(network for network, _ in looked))
    shown = [each for _, each in looked if each is not None]
    make(folder / "figures")
    png, svg = (folder / "figures" / f"{_figure(budget)}.{ending}" for ending in ("png", "svg"))
    if shown:
        figure = filters(f"What the filters see within {short_budget(budget)}", shown)
        write_whole(png, to_png(figure))
        write_whole(svg, to_svg(figure))
    else:
        png.unlink(missing_ok=True)
        svg.unlink(missing_ok=True)
    make(_path(folder, budget).parent)
    write_json(_path(folder, budget), _to_json(sight))
    return sight


def sight_of(folder: Path, budget: Budget) -> BudgetSight | None:
    """What was seen under a budget; None where nothing was written, or what was cannot be read.

    Args:
        folder: The study's.
        budget: The budget.
    """
    try:
        return _from_json(json.loads(_path(folder, budget).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ConfigError):
        return None


def sentences(sight: BudgetSight) -> list[str]:
    """The numbers of one budget in words: filters in effect, dead ones, what could not be looked into."""
    seen = [each for each in sight.networks if each.stages]
    said = []
    if seen:
        uses = [f"{_named(each)} has {listed([*map(_use, each.stages)])} filters in effect" for each in seen]
        said.append(f"Within {short_budget(sight.budget)}, stage by stage, {'; '.join(uses)}.")
    if len(sight.networks) == 1:
        (only,) = sight.networks
        said.append(f"The best confirmed is {only.rule} itself, so there is one network to look into.")
    for each in seen:
        dead = [f"{stage.dead} in stage {number}" for number, stage in enumerate(each.stages, start=1) if stage.dead]
        if dead:
            said.append(f"Of {each.schedule} some filters are dead, the same for every image: {listed(dead)}.")
    said += [
        f"{capital(_named(each))} cannot be looked into: {each.unseen}." for each in sight.networks if each.unseen
    ]
    return said


def reading(sight: BudgetSight) -> str:
    """How to read the picture, in one line."""
    fields = next((each.stages for each in sight.networks if each.stages), ())
    spans = listed(["x".join(map(str, stage.receptive_field)) for stage in fields])
    return (
        f"From stage to stage a filter sees more of an image, at most all of it ({spans} pixels): look for edges "
        "first, then parts, then whole objects."
    )


def alt_text(sight: BudgetSight) -> str:
    """What the picture shows, for who cannot see it."""
    titles = listed([each.title for each in sight.networks if each.stages])
    return (
        f"First kernels and, for up to {TILES} filters of each stage, the {PATCHES} patches of validation images that "
        f"excite them most, of {titles}. {' '.join(sentences(sight))}"
    )


def _finding(findings: Findings, budget: Budget) -> Finding:
    """On the first rule judged under a budget."""
    return next(each for each in findings.findings if each.case.budget == budget)


def _look(
    plan: StudyPlan, schedule: FilterSchedule, run: Run, best: bool, rule: str | None
) -> tuple[SeenNetwork, Shown | None]:
    if isinstance(run, Failed):
        unseen = "its training diverged" if run.reason == "diverged" else "its training ran out of memory"
        return SeenNetwork(schedule, best, rule, run.seed, 0, (), unseen), None
    split = Splits(plan.data, plan.config.data).train_validation(run.seed, plan.config.training.share)
    rng = np.random.default_rng((_IMAGES_STREAM, run.seed))
    count = max(1, min(len(split.validation), _MOST_IMAGES, _MOST_NUMBERS // int(np.prod(plan.data.image_shape))))
    chosen = np.sort(rng.choice(split.validation, count, replace=False))
    device = choose_device(plan.config.compute.device)
    network = rebuilt(plan.config.network, schedule, run, plan.data).to(device)
    sight = look(network, normalised(plan.data, split, chosen).to(device))
    match sight:
        case Unseen(reason):
            return SeenNetwork(schedule, best, rule, run.seed, 0, (), reason), None
        case NetworkSight():
            seen = SeenNetwork(schedule, best, rule, run.seed, count, tuple(_stages(sight)))
            return seen, Shown(seen.title, BLUE if best else VERMILLION, sight, plan.data.images[chosen])


def _stages(sight: NetworkSight) -> Iterator[StageInUse]:
    for stage in sight.stages:
        field = stage.rows.size, stage.columns.size
        yield StageInUse(stage.filters, round(stage.effective, 2), stage.dead, field)


def _named(network: SeenNetwork) -> str:
    return str(network.schedule) if network.rule is None else f"{network.rule}'s {network.schedule}"


def _use(stage: StageInUse) -> str:
    return f"{stage.effective:.1f} of {stage.filters}"


def _figure(budget: Budget) -> str:
    return f"filters-{budget.folder}"


def _path(folder: Path, budget: Budget) -> Path:
    return folder / "best" / budget.folder / "filters.json"


def _to_json(sight: BudgetSight) -> dict[str, Any]:
    return {
        "schema": 1,
        "budget": str(sight.budget),
        "figure": sight.figure,
        "networks": [
            {
                "schedule": str(each.schedule),
                "best": each.best,
                "rule": each.rule,
                "seed": each.seed,
                "split": "validation",
                "images": each.images,
                "unseen": each.unseen,
                "stages": [
                    {
                        "filters": stage.filters,
                        "effective": stage.effective,
                        "dead": stage.dead,
                        "receptive_field": list(stage.receptive_field),
                    }
                    for stage in each.stages
                ],
            }
            for each in sight.networks
        ],
    }


def _from_json(values: Mapping[str, Any]) -> BudgetSight:
    """What `_to_json` wrote; of a file that anybody may have written, so that every value is made what it is to be."""
    networks = tuple(map(_network_from_json, values["networks"]))
    if not networks:
        msg = "no network"
        raise ValueError(msg)
    return BudgetSight(Budget.parse(values["budget"]), networks)


def _network_from_json(values: Mapping[str, Any]) -> SeenNetwork:
    rule, unseen = (None if values[key] is None else str(values[key]) for key in ("rule", "unseen"))
    return SeenNetwork(
        FilterSchedule.parse(values["schedule"]),
        bool(values["best"]),
        rule,
        int(values["seed"]),
        int(values["images"]),
        tuple(map(_stage_from_json, values["stages"])),
        unseen,
    )


def _stage_from_json(values: Mapping[str, Any]) -> StageInUse:
    high, wide = map(int, values["receptive_field"])
    return StageInUse(int(values["filters"]), float(values["effective"]), int(values["dead"]), (high, wide))
