"""The configuration's section on known accuracies in training's place: a file of them, or a planted surface."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from search.section import Operational, Role, Section


class SurfaceConfig(Section):
    """A planted truth: accuracy as a closed form of the schedule; `search.table.Surface` says which."""

    role: ClassVar[Role] = "semantic"

    best_ratio: float = Field(
        2.0, ge=1 / 16, le=16, description="Growth from stage to stage at which errors are fewest."
    )
    strength: float = Field(
        0.15, ge=0, le=10, description="How often the odds of an error double for one octave off the best ratio."
    )
    size_gain: float = Field(
        0.3, ge=0, le=10, description="How often the odds of an error halve when every stage's filters double."
    )
    accuracy: float = Field(
        0.9, gt=0, lt=1, description="At the best ratio, with 16 filters in the geometric mean of the stages."
    )


class ColumnsConfig(Section):
    """What the columns of the file are called."""

    role: ClassVar[Role] = "semantic"

    schedule: str = Field("schedule", description="Filters of each stage, joined by '-' or ':'.")
    accuracy: tuple[str, ...] = Field(
        ("accuracy",),
        min_length=1,
        max_length=4096,
        description="One column of accuracies, or several: one for each training seed.",
    )
    params: str = Field("params", description="Trainable parameters; may be absent under this name, as all costs.")
    macs: str = Field("macs", description="Multiply-adds for one image.")
    activations: str = Field("activations", description="Convolution outputs for one image.")
    memory: str = Field("memory", description="Peak bytes while training.")

    @model_validator(mode="after")
    def _name_each_once(self) -> Self:
        names = [self.schedule, *self.accuracy, self.params, self.macs, self.activations, self.memory]
        if len(set(names)) < len(names):
            msg = f"columns names one twice: {', '.join(names)}; each serves one purpose"
            raise ValueError(msg)
        return self


class ImagesConfig(Section):
    """The images that costs are worked out for where no column tells them; there is no picture in it."""

    role: ClassVar[Role] = "semantic"

    channels: int = Field(1, ge=1, le=4096, description="Channels of an image.")
    height: int = Field(8, ge=1, le=65536, description="Pixels.")
    width: int = Field(8, ge=1, le=65536, description="Pixels.")
    classes: int = Field(10, ge=2, le=10**6, description="Width of the network's head.")
    batch_size: int = Field(64, ge=2, le=2**20, description="Images per training step; memory is for this many.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width


class TableConfig(Section):
    """Known accuracies in training's place."""

    role: ClassVar[Role] = "semantic"

    path: Annotated[str | None, Operational] = Field(
        None, description="A CSV file of schedules with their accuracies, from the folder the command is given in."
    )
    columns: ColumnsConfig = ColumnsConfig()
    percent: bool = Field(False, description="Whether the file's accuracies run to 100 instead of 1.")
    surface: SurfaceConfig | None = Field(None, description="A planted truth in place of a file.")
    images: ImagesConfig | None = Field(
        None, description="Prices schedules by `network` on such images, in every cost the file has no column of."
    )
    noise_sd: float | None = Field(
        None, ge=0, lt=0.5, description="Sd of a run's accuracy (a fraction) around the known one; none with seeds."
    )
    noise_spread: float = Field(
        1.0, ge=1, le=16, description="A schedule's own sd is between noise_sd over and times this; 1: equal noise."
    )
    exhaustive: bool = Field(
        False, description="Compare all schedules at their known accuracies: no sampling, no noise, no confirmation."
    )

    seconds_per_run: Annotated[float, Operational] = Field(
        0.0,
        ge=0,
        le=3600,
        description="What each run takes, in place of a training: to try out workers and clusters; results are the "
        "same.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if (self.path is None) == (self.surface is None):
            msg = "a table is either a file or a planted surface; give one of path and surface"
            raise ValueError(msg)
        if self.surface is not None:
            self._check_surface()
        noisy = not self.exhaustive and len(self.columns.accuracy) == 1
        if noisy and self.noise_sd is None:
            msg = "one accuracy for each schedule needs noise_sd, such as 0.002, or 0 for runs that all agree"
            raise ValueError(msg)
        if not noisy and (self.noise_sd is not None or self.noise_spread != 1):
            why = "exhaustive looks at no runs" if self.exhaustive else "several accuracy columns are the runs"
            msg = f"{why}, so noise_sd and noise_spread have no use; leave both out"
            raise ValueError(msg)
        if self.exhaustive:
            self.refuse_unread(("seconds_per_run",), "has no use, as exhaustive looks at no runs")
        return self

    def _check_surface(self) -> None:
        if self.columns != ColumnsConfig() or self.percent:
            msg = "a surface has no file; leave columns and percent out"
            raise ValueError(msg)
        if self.images is None:
            msg = "a surface needs images to price its schedules for; give images, or {} for 8x8 of one channel"
            raise ValueError(msg)

    def deciding(self) -> dict[str, Any]:
        """Plain values for a fingerprint; where the file lies was counted once, so that it has its default in them."""
        return self.semantic() | {"path": None}

    def unused(self) -> tuple[str, ...]:
        """What of the whole configuration has no use beside this table, as dotted keys."""
        unused = ["data", "training", "soundness"]
        if self.images is None:
            unused.append("network")
        if self.exhaustive:
            unused += ["search", *(f"confirm.{key}" for key in ("confidence", "looks", "allowance", "challengers"))]
        return tuple(unused)
