"""The configuration's section on images: where they come from, which are used, how they are split."""

import json
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from search.section import Operational, Role, Section

ClassLabel = Annotated[int, Field(ge=0)]
TorchvisionName = Literal[
    "CIFAR10",
    "CIFAR100",
    "Caltech101",
    "Caltech256",
    "Country211",
    "DTD",
    "EMNIST",
    "EuroSAT",
    "FER2013",
    "FGVCAircraft",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "ImageNet",
    "Imagenette",
    "KMNIST",
    "MNIST",
    "OxfordIIITPet",
    "PCAM",
    "QMNIST",
    "RenderedSST2",
    "SEMEION",
    "STL10",
    "SUN397",
    "SVHN",
    "StanfordCars",
    "USPS",
]
TORCHVISION_NAMES: tuple[TorchvisionName, ...] = get_args(TorchvisionName)


class DataConfig(Section):
    """Where images come from and how they are split."""

    role: ClassVar[Role] = "semantic"

    source: Literal["digits", "combinations", "folder", "npz", "factory"] | TorchvisionName = Field(
        "digits",
        description="digits: the 1,797 8x8 images that scikit-learn ships; combinations: synthetic 12x12 images whose "
        "classes are the combinations of a few features; folder: one folder of images for each class, in train/ and "
        "test/ or not; npz: a NumPy file with x_train, y_train and, where there is one, x_test, y_test; factory: a "
        "function of yours; or one of torchvision's sets, such as FashionMNIST.",
    )
    path: Annotated[str | None, Operational] = Field(
        None,
        description="The folder of source folder, the file of source npz, the root below which torchvision keeps its "
        "sets; from where the command runs.",
    )
    download: Annotated[bool, Operational] = Field(
        False, description="Fetch a torchvision set that is not below path."
    )
    factory: str | None = Field(
        None,
        description="`package.module:function` of source factory; called without arguments, it returns what the file "
        "of source npz would hold.",
    )
    features: int = Field(
        5, ge=2, le=6, description="Features that source combinations combines; k of them make 2^k-1 classes."
    )
    images: int = Field(2400, ge=1, le=100_000, description="Images that source combinations draws.")
    resolution: int | None = Field(
        None,
        ge=4,
        le=1024,
        description="Height and width images are brought to, once: shorter side resized, middle cut out; null: as "
        "they are where all have one size, else 64.",
    )
    on_bad: Literal["error", "skip"] = Field(
        "error",
        description="error: a file that cannot be used, such as a truncated image, ends the command, and all of them "
        "are named; skip: such files are left out and counted.",
    )
    classes: tuple[ClassLabel | Annotated[tuple[ClassLabel, ...], Field(min_length=1)], ...] = Field(
        (),
        description="Classes to keep, by number; a list of several merges them into one. Images of classes not named "
        "are dropped; an empty list keeps all classes as they are.",
    )
    groups: Annotated[str | None, Operational] = Field(
        None,
        description="CSV file with columns image and group: images of one group, such as one patient's, stay in one "
        "split. An image is a path below the folder, else its number from 0, training images first. Training and "
        "validation are then drawn once.",
    )
    test_fraction: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of all images in the test split, never searched on; of no use where the data come with a "
        "test split.",
    )
    validation_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of all images the search is scored on; the rest trains."
    )
    split_seed: int = Field(0, ge=0, description="Settles the test split for the study's life.")
    redraw_validation: bool = Field(
        True,
        description="Draw training and validation anew for every seed, so no search score rests on one lucky draw; a "
        "validation split that the data come with is kept.",
    )

    @model_validator(mode="after")
    def _leave_images_to_train(self) -> Self:
        if self.test_fraction + self.validation_fraction >= 1:
            msg = (
                f"test_fraction {self.test_fraction} and validation_fraction {self.validation_fraction} leave no "
                "training images; their sum must be below 1"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _refuse_what_would_not_be_read(self) -> Self:
        embedded = self.source in ("digits", "combinations")
        unread = {
            "is for source combinations": ("features", "images") * (self.source != "combinations"),
            "is for torchvision's sets": ("download",) * (self.source not in TORCHVISION_NAMES),
            "is for source factory": ("factory",) * (self.source != "factory"),
            "is for source folder": ("on_bad",) * (self.source != "folder"),
            f"has no use with source {self.source}": ("path",) * (embedded or self.source == "factory")
            + ("resolution", "groups") * embedded,
        }
        for why, names in unread.items():
            self.refuse_unread(names, why)
        return self

    @model_validator(mode="after")
    def _name_what_is_needed(self) -> Self:
        if self.source == "factory":
            if self.factory is None:
                msg = "source factory needs data.factory, the function to call, such as my_data:load"
                raise ValueError(msg)
        elif self.source not in ("digits", "combinations") and self.path is None:
            example = {"folder": "photos", "npz": "images.npz"}.get(self.source, "~/data")
            msg = f"source {self.source} needs data.path, where the images lie, such as {example}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        named = [label for group in self.class_groups() for label in group]
        repeated = sorted({label for label in named if named.count(label) > 1})
        if repeated:
            msg = f"classes names {', '.join(map(str, repeated))} more than once; each class belongs to one group"
            raise ValueError(msg)
        if len(self.classes) == 1:
            msg = (
                f"classes {json.dumps(self.classes)} leaves one class, so there is nothing to tell apart; name two "
                "classes or groups, or more"
            )
            raise ValueError(msg)
        return self

    def deciding(self) -> dict[str, Any]:
        """Plain values for a fingerprint; where bytes lie was counted once, so that it has its default in them."""
        return self.semantic() | {"path": None, "download": False, "groups": None}

    def class_groups(self) -> list[tuple[int, ...]]:
        """The classes of the data that make up each class of the study; empty where all stay as they are."""
        return [group if isinstance(group, tuple) else (group,) for group in self.classes]
