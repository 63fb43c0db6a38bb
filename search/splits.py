"""Who may see which images.

Every split is drawn here and nowhere else, so that leakage can be looked for in one file. Knows nothing of torch or
networks.
"""

import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from search.data import ANY, TEST, VALIDATION, ImageData
from search.dataconfig import DataConfig
from search.errors import DataError

# First words of the entropy, so that no two kinds of draw share a stream whatever the seeds.
_TEST_STREAM, _FIXED_STREAM, _REDRAWN_STREAM, _SHARE_STREAM = 1, 2, 3, 6
_MOST_FOLDS = 20
"""Groups are dealt into at most so many folds, of which a split takes some; so fractions are met to a twentieth."""


_Members = list[NDArray[np.int64]]
"""Indices of images, a list entry for each class."""


@dataclass(frozen=True)
class TrainValidation:
    """The images one run trains on, and those the search scores it on; sorted indices."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]


class Splits:
    """Which images test, validate and train.

    Test and validation splits that the data came with stay as they are. Else the test split is drawn by `split_seed`
    and stays for the study's life; training and validation share the rest, and with `redraw_validation` they are drawn
    anew for every run seed. These draws are stratified: a class has the same number of images in a split whatever the
    seed, so the splits of all seeds are equally large. Where images come in groups, a group stays in one split, sizes
    are what the groups allow, and training and validation are drawn once.

    Args:
        data: The images; those it puts in a test or validation split are never in another.
        config: Fractions, of all images, and seeds.

    Raises:
        DataError: A class too small to have an image in each split, or a group the data's own splits divide.
    """

    def __init__(self, data: ImageData, config: DataConfig) -> None:
        self._data, self._config = data, config
        own = np.full(len(data.labels), ANY) if data.own_split is None else data.own_split
        self.own_test = bool((own == TEST).any())
        """Whether the data came with a test split."""
        self._own = {name for name, place in (("test", TEST), ("validation", VALIDATION)) if (own == place).any()}
        members = self._by_class(np.arange(len(own)))
        if self.own_test:
            chosen, self._rest = [[each[(own[each] == TEST) == side] for each in members] for side in (True, False)]
        else:
            rng = np.random.default_rng((_TEST_STREAM, config.split_seed))
            chosen, self._rest = self._divide(members, config.test_fraction, rng)
        self.test = _sorted(chosen)
        """Indices of the test images, sorted."""
        # Where no test images were drawn, the fraction of all images is a larger one of those left.
        self._fraction = config.validation_fraction * (len(own) / (len(own) - len(self.test)) if self.own_test else 1)
        self._fixed: tuple[_Members, _Members] | None = None
        if (own == VALIDATION).any():
            given, others = [
                [each[(own[each] == VALIDATION) == side] for each in self._rest] for side in (True, False)
            ]
            self._fixed = given, others
        elif not config.redraw_validation or data.groups is not None:
            self._fixed = self._draw_validation(np.random.default_rng((_FIXED_STREAM, config.split_seed)))
        self._check(self.train_validation(0))

    def train_validation(self, seed: int, share: float = 1.0) -> TrainValidation:
        """The training and validation images of the run with this seed; disjoint from `test` and from each other.

        Args:
            seed: The run's.
            share: How much of the training split to keep, of every class alike and at least one image; which ones, the
                seed settles.
        """
        rng = np.random.default_rng((_REDRAWN_STREAM, self._config.split_seed, seed))
        validation, training = self._fixed or self._draw_validation(rng)
        if share < 1:
            rng = np.random.default_rng((_SHARE_STREAM, self._config.split_seed, seed))
            counts = np.array([len(each) for each in training])
            training, _ = _draw(training, _allocate(counts, share), rng)
        return TrainValidation(_sorted(training), _sorted(validation))

    def _draw_validation(self, rng: np.random.Generator) -> tuple[_Members, _Members]:
        if self.own_test:
            return self._divide(self._rest, self._fraction, rng)
        return self._divide(self._rest, self._fraction, rng, np.bincount(self._data.strata))

    def _divide(
        self, members: _Members, fraction: float, rng: np.random.Generator, counts: NDArray[np.int64] | None = None
    ) -> tuple[_Members, _Members]:
        """The images drawn for a split, and the others, both by class.

        Args:
            members: Images of each class to draw from.
            fraction: Share of `counts` to draw.
            rng: Settles the draw.
            counts: Images of each class; those of `members` unless given.
        """
        if self._data.groups is not None:
            of_members = 1.0 if counts is None else counts.sum() / sum(map(len, members))
            return self._divide_groups(_sorted(members), fraction * of_members, rng)
        return _draw(members, _allocate(np.array([*map(len, members)]) if counts is None else counts, fraction), rng)

    def _divide_groups(
        self, indices: NDArray[np.int64], fraction: float, rng: np.random.Generator
    ) -> tuple[_Members, _Members]:
        """Whole groups with about a fraction of the images, their classes mixed as in all of them, and the others."""
        from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped] # takes a second

        assert self._data.groups is not None
        strata, groups = self._data.strata[indices], self._data.groups[indices]
        most = min(_MOST_FOLDS, len(np.unique(groups)), int(np.bincount(strata).max()))
        if most < 2:
            msg = (
                f"{self._data.name}: all images left to split are of one group; name two groups or more of each class"
            )
            raise DataError(msg)
        part = min(max(Fraction(fraction).limit_denominator(most), Fraction(1, most)), Fraction(most - 1, most))
        folds = StratifiedGroupKFold(part.denominator, shuffle=True, random_state=int(rng.integers(2**32)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds: `_check` judges
            drawn = [chosen for _, chosen in folds.split(strata, strata, groups)]
        chosen = indices[np.concatenate(drawn[: part.numerator])]
        return self._by_class(np.sort(chosen)), self._by_class(np.setdiff1d(indices, chosen))

    def _by_class(self, indices: NDArray[np.int64]) -> _Members:
        strata = self._data.strata
        return [indices[strata[indices] == label] for label in range(int(strata.max()) + 1)]

    def _check(self, drawn: TrainValidation) -> None:
        """Refuse splits without a class, or with parts of one group.

        Raises:
            DataError: See the class.
        """
        splits = {"test": self.test, "validation": drawn.validation, "training": drawn.training}
        strata, groups, names = self._data.strata, self._data.groups, self._data.class_names
        counts = np.bincount(strata)
        for split, indices in splits.items():
            for label in np.flatnonzero((np.bincount(strata[indices], minlength=len(counts)) < 1) & (counts > 0)):
                called = f"class {label}" + (f" ({names[label]})" if names and self._data.merged_from is None else "")
                if split in self._own:
                    msg = (
                        f"{called} has no image in the {split} split that the data came with; add images of it there, "
                        f"drop the class by data.classes, or leave that split out so that one is drawn"
                    )
                else:
                    msg = (
                        f"{called} has {counts[label]} image{'s' if counts[label] > 1 else ''}, which leaves none "
                        f"for the {split} split; every class needs one in each of test, validation and training: add "
                        "images of it or change the fractions"
                    )
                raise DataError(msg)
        if groups is not None and (divided := np.intersect1d(groups[self.test], groups[_sorted(self._rest)])).size:
            msg = (
                f"{len(divided)} groups have images both in the data's own test split and outside it; move each "
                "group's images to one side, or merge the folders so that the split is drawn by groups"
            )
            raise DataError(msg)


def _allocate(counts: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Images per class for a split, by largest remainder: within one of each class's share, exact in total.

    But one of every class that has any, however small its share: a split without a class cannot tell how it is
    classified.

    scikit-learn's stratified split breaks ties at random, so a rare class could be missing under some seeds only.
    """
    shares = counts * fraction
    allocated: NDArray[np.int64] = np.floor(shares).astype(np.int64)
    missing = round(float(shares.sum())) - int(allocated.sum())
    allocated[np.argsort(allocated - shares, kind="stable")[:missing]] += 1
    return np.maximum(allocated, np.minimum(counts, 1))


def _draw(members: _Members, counts: NDArray[np.int64], rng: np.random.Generator) -> tuple[_Members, _Members]:
    """Per class, `counts` of its members drawn at random, and the others."""
    shuffled = [rng.permutation(indices) for indices in members]
    return (
        [indices[:count] for indices, count in zip(shuffled, counts, strict=True)],
        [indices[count:] for indices, count in zip(shuffled, counts, strict=True)],
    )


def _sorted(members: _Members) -> NDArray[np.int64]:
    return np.sort(np.concatenate(members))
