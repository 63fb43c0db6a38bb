"""The typed configuration: one frozen value a whole study runs from.

Owns fields, ranges and the checks that need no network. Reading files is the business of `configfile`, and what is
semantic, so that a resume must not change it, that of `section`.
"""

import hashlib
import json
import re
from operator import attrgetter
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from search.cost import Budget
from search.dataconfig import DataConfig
from search.networkconfig import NetworkConfig
from search.rules import Rule
from search.section import Positive, Role, Section
from search.tableconfig import TableConfig
from search.trainingconfig import TrainingConfig

LARGEST_FILTERS = 2**40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _parse_budget(value: object) -> Budget:
    if isinstance(value, Budget):
        return value
    if not isinstance(value, str):
        msg = f"a budget is text such as 'params <= 1500', not {value!r}"
        raise ValueError(msg)  # no TypeError: pydantic collects ValueError only
    return Budget.parse(value)


def _parse_rule(value: object) -> Rule:
    return value if isinstance(value, Rule) else Rule.parse(str(value))


def _text(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


BudgetText = Annotated[Budget, PlainValidator(_parse_budget), PlainSerializer(str), _text("params <= 1500")]
RuleText = Annotated[Rule, PlainValidator(_parse_rule), PlainSerializer(str), _text("geometric(2.5)")]
SamplerName = Literal["qmc", "band", "macs", "random", "tpe", "gp", "nsga2"]
Look = Annotated[int, Field(ge=1, le=100_000)]
DeviceName = Literal["auto", "cpu", "cuda"]
WorkerCount = Annotated[int, Field(ge=1, le=1024)]


class StageConfig(Section):
    """The range of one stage's filters."""

    role: ClassVar[Role] = "semantic"

    low: Positive = Field(2, description="Fewest filters.")
    high: Positive | Literal["combinations"] = Field(
        64,
        description="Most filters; `combinations` means 2^c-1, where c is the most of the stage before.",
    )
    scale: Literal["log", "linear"] = Field("log", description="How the sampler spreads its proposals.")


class FiltersConfig(Section):
    """The space: one range per stage."""

    role: ClassVar[Role] = "semantic"

    multiple: Positive = Field(1, le=1024, description="Filters come in multiples of this.")
    stages: tuple[StageConfig, ...] = Field(
        (StageConfig(), StageConfig(), StageConfig()), min_length=1, max_length=12, description="First stage first."
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for number, (low, high) in enumerate(self.ranges(), start=1):
            if high > LARGEST_FILTERS:
                msg = f"stage {number} reaches {high} filters; at most {LARGEST_FILTERS} can be priced: lower its high"
                raise ValueError(msg)
            if low > high:
                msg = (
                    f"stage {number} has low {low} above high {high}; low must not exceed high, so swap or widen them"
                )
                raise ValueError(msg)
            if -(-low // self.multiple) > high // self.multiple:
                msg = (
                    f"stage {number} has no multiple of {self.multiple} from low {low} to high {high}; widen the range"
                )
                raise ValueError(msg)
        return self

    def ranges(self) -> list[tuple[int, int]]:
        """Fewest and most filters of each stage, `combinations` worked out.

        Raises:
            ValueError: The first stage asks for combinations of a stage before it.
        """
        ranges: list[tuple[int, int]] = []
        for number, stage in enumerate(self.stages, start=1):
            if stage.high == "combinations":
                if not ranges:
                    msg = "stage 1 has no stage before it to combine; give its high as a number"
                    raise ValueError(msg)
                before = ranges[-1][1]
                if before > 40:
                    msg = f"stage {number} reaches 2^{before}-1 filters; lower the high of the stage before it to 40"
                    raise ValueError(msg)
                ranges.append((stage.low, 2**before - 1))
            else:
                ranges.append((stage.low, stage.high))
        return ranges


class RulesConfig(Section):
    """Which rules are judged, and which compete with them."""

    role: ClassVar[Role] = "semantic"

    judged: tuple[RuleText, ...] = Field(
        (Rule("doubling"),), min_length=1, description="Rules that get a verdict under every budget."
    )
    compared: tuple[RuleText, ...] = Field(
        tuple(
            Rule.parse(text)
            for text in ("uniform", "geometric(1.5)", "geometric(2.5)", "linear", "reverse", "hump", "combinations(5)")
        ),
        description="Other rules, fitted to every budget and tried first.",
    )


class SearchConfig(Section):
    """How many candidates are tried, how they are proposed and what a trial's value is."""

    role: ClassVar[Role] = "semantic"

    objective: Literal["constrained", "weighted", "pareto"] = Field(
        "constrained",
        description="constrained: accuracy within the budget aimed at; weighted: accuracy minus what params and "
        "memory weigh; pareto: accuracy, params and memory at once.",
    )
    params_weight: float = Field(
        0.005, ge=0, le=1, description="Accuracy (a fraction) one pays for halving the parameters; weighted objective."
    )
    memory_weight: float = Field(
        0.005, ge=0, le=1, description="Accuracy (a fraction) one pays for halving the memory; weighted objective."
    )
    sampler: SamplerName = Field(
        "qmc",
        description="qmc: spread evenly over the space, scaled down where it breaks the budget aimed at, as are "
        "Optuna's random, tpe, gp and nsga2; band: spread evenly, scaled until it just fits; macs: most MACs first.",
    )
    trials: Positive = Field(64, le=1_000_000, description="Finished trials the search ends with.")
    seeds_per_trial: int = Field(4, ge=1, le=64, description="Runs of each trial, trained in one pass where possible.")


class ConfirmConfig(Section):
    """How the verdict is reached; fixed before the first run."""

    role: ClassVar[Role] = "semantic"

    margin: float = Field(0.005, gt=0, lt=0.5, description="Regret (a fraction) one is willing to call nothing.")
    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="Confidence of each verdict and its intervals, over all looks together.",
    )
    looks: tuple[Look, ...] = Field(
        (16, 32, 64, 128),
        min_length=1,
        max_length=16,
        description="Runs per schedule at which the verdict is looked at; they rise, from 2 runs or more.",
    )
    allowance: Positive | None = Field(
        None,
        description="Confirmation runs in all, spent look by look where a decision per run is likeliest; null: as "
        "many as the looks take.",
    )
    challengers: int = Field(4, ge=1, le=32, description="At most so many schedules are confirmed against a rule.")

    @model_validator(mode="after")
    def _looks_rise(self) -> Self:
        if self.looks[0] < 2 or any(a >= b for a, b in zip(self.looks, self.looks[1:], strict=False)):
            msg = f"looks {list(self.looks)} must rise and start at 2 runs or more, such as [16, 32, 64, 128]"
            raise ValueError(msg)
        least = self.looks[0] * (1 + self.challengers)
        if self.allowance is not None and self.allowance < least:
            msg = (
                f"allowance {self.allowance} does not pay for one look: a rule and {self.challengers} challengers at "
                f"{self.looks[0]} runs take {least}; raise it, or lower challengers or the first look"
            )
            raise ValueError(msg)
        return self


class SoundnessConfig(Section):
    """Whether a verdict is an artefact of the recipe or of brief training, asked once the verdicts are there."""

    role: ClassVar[Role] = "semantic"

    learning_rate_runs: int = Field(
        16,
        ge=0,
        le=1024,
        description="Runs of each judged rule and its best challenger at half and at double the learning rate; 0: "
        "none.",
    )
    fidelity_schedules: int = Field(
        0,
        ge=0,
        le=256,
        description="Schedules of each budget trained both for `epochs` and for `full_epochs`, to compare their "
        "ranks; 0: none.",
    )
    fidelity_runs: int = Field(4, ge=2, le=64, description="Runs of each of them, for either number of epochs.")

    @model_validator(mode="after")
    def _enough_to_compare(self) -> Self:
        if self.learning_rate_runs == 1:
            msg = "learning_rate_runs 1 has no interval; give 0 for none, or 2 runs or more"
            raise ValueError(msg)
        if 0 < self.fidelity_schedules < 4:
            msg = f"fidelity_schedules {self.fidelity_schedules} have hardly ranks; give 0 for none, or 4 or more"
            raise ValueError(msg)
        return self


class ComputeConfig(Section):
    """What may change between a run and its resume, and from machine to machine."""

    role: ClassVar[Role] = "operational"

    workers: WorkerCount | Literal["auto"] = Field(
        "auto", description="Local processes; auto: one per core on a CPU, one on a GPU, which more may share."
    )
    device: DeviceName = Field(
        "auto", description="Where networks train; auto: CUDA where a GPU is found, else the CPU."
    )
    max_wall_hours: float | None = Field(
        None, gt=0, description="Stop cleanly after so long, and --resume goes on; null: no limit."
    )
    max_gpu_hours: float | None = Field(
        None,
        gt=0,
        description="Stop cleanly once all runs of the study, on whichever machine, have trained for so long together "
        "(on a CPU that counts too), and --resume with more goes on; null: no limit.",
    )
    max_job_minutes: float | None = Field(
        None,
        gt=0,
        description="What takes longer is killed and tried again, at most three times; null: no limit. One job is a "
        "trial, or several confirmation runs of one schedule.",
    )
    lease_seconds: float = Field(
        30.0,
        ge=1,
        le=86_400,
        description="How long whoever tends workers may be silent before others take over what these were doing.",
    )
    gpus_per_worker: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of a GPU that a worker started by Ray asks for; not for device cpu.",
    )
    ray_address: str | None = Field(
        None,
        description="The Ray cluster that workers start on, such as head:6379; null: the one that RAY_ADDRESS names, "
        "else the one this machine is in.",
    )

    @model_validator(mode="after")
    def _refuse_a_share_of_no_gpu(self) -> Self:
        if self.device == "cpu":
            self.refuse_unread(("gpus_per_worker",), "is for a GPU, and device is cpu")
        return self


class StudyConfig(Section):
    """Everything a study runs from."""

    role: ClassVar[Role] = "semantic"

    name: str = Field(
        "digits", description="The study's name, and its folder below studies/ unless --out says otherwise."
    )
    question: str = Field(
        "Is doubling the filters at every stage near-optimal?",
        max_length=500,
        description="What the study is to answer; the report opens with it.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Settles every random choice of the study.")
    data: DataConfig = DataConfig()
    table: TableConfig | None = Field(
        None, description="Known accuracies in training's place; data and training then have no use."
    )
    network: NetworkConfig = NetworkConfig()
    filters: FiltersConfig = FiltersConfig()
    budgets: tuple[BudgetText, ...] = Field(
        (Budget("params", 1500), Budget("macs", 40_000), Budget("activations", 500)),
        min_length=1,
        max_length=32,
        description="Limits on params, macs, activations (for one image) or memory while training (bytes, KiB, MiB, "
        "GiB, or a share of the device's such as 50 %, kept in bytes). Every budget gets its own verdict.",
    )
    rules: RulesConfig = RulesConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    soundness: SoundnessConfig = SoundnessConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if not _NAME.fullmatch(self.name):
            msg = (
                f"name {self.name!r} must be at most 64 letters, digits, '.', '_' or '-' and start with a letter or "
                "digit; it is no path: --out names the folder"
            )
            raise ValueError(msg)
        for what, values in (("budgets", self.budgets), ("rules", self.rules.judged + self.rules.compared)):
            if len(set(values)) < len(values):
                msg = f"{what} names one twice: {', '.join(map(str, values))}; each counts once"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _refuse_what_a_table_leaves_unused(self) -> Self:
        defaults = type(self).model_construct()
        for key in self.table.unused() if self.table else ():
            if attrgetter(key)(self) != attrgetter(key)(defaults):
                msg = f"{key} has no use beside this table; leave it out"
                raise ValueError(msg)
        return self

    def fingerprint(self) -> str:
        """SHA-256 of the semantic part."""
        deciding = self.semantic() | {"training": self.training.deciding(), "data": self.data.deciding()}
        if self.table is not None:
            deciding["table"] = self.table.deciding()
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
