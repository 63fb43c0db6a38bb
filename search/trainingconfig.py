"""The configuration's section on the recipe every candidate gets."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from search.section import Positive, Role, Section

Precision = Literal["float32", "bfloat16"]
ScoreName = Literal["accuracy", "balanced_accuracy"]


class AugmentConfig(Section):
    """How training images are varied, anew in every epoch; what a run is scored on stays as it is."""

    role: ClassVar[Role] = "semantic"

    flip: bool = Field(False, description="Mirror half of the images, left to right.")
    crop: int = Field(
        0,
        ge=0,
        le=64,
        description="Shift images by up to so many pixels either way, at most half of their side; what comes in is 0.",
    )
    randaugment: int = Field(
        0,
        ge=0,
        le=4,
        description="RandAugment's operations for each image, at magnitude 9; 0: none. For uint8 images from 0 to "
        "255: in a smaller range, such as the digits' 0 to 16, its colour operations distort.",
    )
    mixup: float = Field(0.0, ge=0, le=8, description="Alpha of mixup; 0: none.")
    cutmix: float = Field(
        0.0,
        ge=0,
        le=8,
        description="Alpha of CutMix; 0: none. With mixup, each batch gets one or the other at random.",
    )

    @property
    def in_words(self) -> str:
        """What is done, `flip, crop (2 pixels), mixup (alpha 0.2)`; empty where images stay as they are."""
        mixing = [
            f"{name} (alpha {alpha:g})" for name, alpha in (("mixup", self.mixup), ("CutMix", self.cutmix)) if alpha
        ]
        said = (
            "flip" * self.flip,
            f"crop ({self.crop} pixel{'s' * (self.crop > 1)})" * (self.crop > 0),
            f"RandAugment ({self.randaugment} operation{'s' * (self.randaugment > 1)})" * (self.randaugment > 0),
            " or ".join(mixing),
        )
        return ", ".join(filter(None, said))


class TrainingConfig(Section):
    """The recipe every candidate gets: AdamW under a one-cycle schedule."""

    role: ClassVar[Role] = "semantic"

    epochs: Positive = Field(15, le=100_000, description="Epochs of a trial and of a confirmation run.")
    full_epochs: Positive = Field(60, le=100_000, description="Epochs of `filter-search train`.")
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the training split that a trial or a confirmation run trains on, drawn anew for every "
        "seed; `filter-search train` takes all of it.",
    )
    batch_size: int = Field(
        64, ge=2, le=2**20, description="Images per step; predicted training memory is for this many."
    )
    learning_rate: float = Field(0.05, gt=0, le=10, description="Peak of the one-cycle schedule.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's decoupled weight decay.")
    precision: Precision = Field(
        "float32",
        description="What training passes compute in; weights stay float32 and scores are computed in it. bfloat16 is "
        "faster on images from 28x28 on where the processor computes in it, and changes results a little.",
    )
    score: ScoreName = Field(
        "accuracy",
        description="accuracy: share of images classified correctly; balanced_accuracy: the mean of that share over "
        "the classes, for classes of unequal size.",
    )
    augment: AugmentConfig = AugmentConfig()

    def deciding(self) -> dict[str, Any]:
        """Plain values for a fingerprint; without what came later and has its default, so that earlier ones hold."""
        later = {"precision"} if self.precision == "float32" else set()
        return self.model_dump(mode="json", exclude=later)

    def batch_of(self, images: int) -> int:
        """Images per step where so many train: fewer than a batch make one of them all, as batch norm needs two."""
        return max(2, min(self.batch_size, images))
