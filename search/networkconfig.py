"""The configuration's section on the network family whose stages get their filters from the schedule."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from search.section import Positive, Role, Section

Family = Literal["plain", "residual", "bottleneck", "regnet", "inverted", "factory"]
Blocks = Annotated[int, Field(ge=1, le=64)]


class NetworkConfig(Section):
    """The network family whose stages get their filters from the schedule."""

    role: ClassVar[Role] = "semantic"

    family: Family = Field(
        "plain",
        description="plain: 3x3 convolution, batch norm, ReLU, 2x2 max pooling between stages; residual, bottleneck: "
        "ResNet's two blocks; regnet: RegNet's; inverted: MobileNet's inverted residuals; factory: a function of "
        "yours.",
    )
    factory: str | None = Field(
        None,
        description="`package.module:function` of family factory; called with the filters of every stage (a tuple), "
        "the channels of the images and the number of classes, it returns an nn.Module.",
    )
    blocks_per_stage: Blocks | Annotated[tuple[Blocks, ...], Field(min_length=1)] = Field(
        1, description="Blocks of every stage, or a list with one number for each; plain with 2 is a VGG."
    )
    stem: Literal["small", "large"] = Field(
        "small",
        description="What comes before the first stage. small: nothing (plain) or one 3x3 convolution, at full "
        "resolution; large: a quarter of the height and width (plain, residual, bottleneck) or half (regnet, "
        "inverted), for images of some 100 pixels or more.",
    )
    stem_filters: Positive | None = Field(
        None, description="Filters of the stem; null: as many as the first stage has (bottleneck: a quarter of them)."
    )
    head_filters: Positive | None = Field(
        None, description="Filters of a 1x1 convolution after the last stage of family inverted; null: none."
    )
    strides: Annotated[tuple[Literal[1, 2], ...], Field(min_length=1)] | None = Field(
        None,
        description="By how much each stage divides height and width; null: 2, but 1 in the first stage (regnet with "
        "a large stem: 2). Not for plain, which pools.",
    )
    group_width: Positive = Field(8, description="Filters of one group in regnet's grouped convolutions.")
    expansion: (
        Annotated[float, Field(ge=1, le=16)]
        | Annotated[tuple[Annotated[float, Field(ge=1, le=16)], ...], Field(min_length=1)]
    ) = Field(6, description="How much wider family inverted is inside its blocks: one factor, or one for each stage.")
    kernel_size: Literal[3, 5, 7] = Field(3, description="Kernel of family inverted's depthwise convolutions.")
    squeeze_excite: bool = Field(False, description="Squeeze-and-excitation in the blocks of regnet and inverted.")

    @model_validator(mode="after")
    def _refuse_what_would_not_be_read(self) -> Self:
        own = self.family == "factory"
        unread = {
            "is for family factory": ("factory",) * (not own),
            "has no use with family factory": ("blocks_per_stage", "stem", "stem_filters", "strides") * own,
            "has no use with family plain": ("strides",) * (self.family == "plain"),
            "is for family regnet": ("group_width",) * (self.family != "regnet"),
            "is for family inverted": ("head_filters", "expansion", "kernel_size") * (self.family != "inverted"),
            "is for families regnet and inverted": ("squeeze_excite",) * (self.family not in ("regnet", "inverted")),
        }
        for why, names in unread.items():
            self.refuse_unread(names, why)
        if self.family == "plain" and self.stem == "small":
            self.refuse_unread(("stem_filters",), "is for a large stem: without one the first stage comes first")
        if self.family == "regnet" and self.squeeze_excite and (self.stem_filters or 4) < 4:
            msg = (
                f"stem_filters {self.stem_filters} leave squeeze_excite less than one channel, a quarter of what a "
                "block gets; 4 or more are allowed"
            )
            raise ValueError(msg)
        if own and self.factory is None:
            msg = "family factory needs network.factory, the function to call, such as my_network:build"
            raise ValueError(msg)
        return self
