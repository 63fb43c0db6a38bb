"""A synthetic data set whose classes are combinations of features, to ask what the second stage is for.

Every image shows some of k small patterns, the features. A class is a non-empty set of them, so there are 2^k-1
classes: the features of the set stand together, those outside it are absent or stand alone. What tells `{1, 2}` beside
a lone 3 from `{1, 2, 3}` is what stands next to what. A feature fits one 3x3 convolution exactly; which ones stand
together does not, but fits a 3x3 convolution after 2x2 pooling. Owns the generator and its constants; numpy only.

An image is drawn so:

* Together: each feature of the class has a place of its own in a block of 2x3 places two pixels apart (features 1 and
  2 side by side, 3 and 4 below them, 5 and 6 beside them). Where it fits, the block lands anywhere, each place alike.
* Alone: where the class has two features or more, each feature outside it is shown with probability 1/2, at a random
  place, a pixel or more away from everything else. Classes of one feature show it and nothing else: beside lone others
  nobody could tell which one counts.
* Patterns that overlap add up. Normal noise of one eighth of a pattern's norm, independent for each pixel, lies over
  all, and the result is rounded to whole grey levels.

The contrast was chosen by measurement: plain two-stage networks of k to 2k filters a stage range from 0.99 at two
features to 0.47 at six, where chance is 0.33 and 0.02, and 16-32 from 1.00 to 0.85.
"""

import numpy as np
from numpy.typing import NDArray

MOST_FEATURES = 6
SIDE = 12
"""Height and width of an image."""

_PATTERN = 3
_GREY = 128  # of an image that shows nothing
_NOISE = 8.0  # standard deviation, in grey levels
_CONTRAST = 64.0  # norm of a pattern, in grey levels
_SHOWN_ALONE = 0.5
_APART = _PATTERN + 1  # between the corners of patterns with a pixel or more between them
_PLACES = 2 * np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)])


def generate(features: int, images: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images with as equal a number of every class as possible.

    Args:
        features: How many there are, k; 1 to 6.
        images: How many to draw.
        rng: Settles everything.

    Returns:
        Pixels `(images, 1, SIDE, SIDE)` and labels `(images,)`; class c is the set of features whose bits are set in
        c + 1.
    """
    labels = np.arange(images, dtype=np.int64) % (2**features - 1)
    together = (labels[:, None] + 1) >> np.arange(features) & 1 == 1
    several = together.sum(axis=1, keepdims=True) > 1
    alone = ~together & several & (rng.random((images, features)) < _SHOWN_ALONE)
    pixels = _GREY + _NOISE * rng.standard_normal((images, SIDE, SIDE))
    patterns = _CONTRAST * primitives()
    for image, beside, apart in zip(pixels, together, alone, strict=True):
        for feature, (top, left) in _place(np.flatnonzero(beside), np.flatnonzero(apart), rng):
            image[top : top + _PATTERN, left : left + _PATTERN] += patterns[feature]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[:, None], labels


def primitives() -> NDArray[np.float64]:
    """The patterns, `(MOST_FEATURES, 3, 3)`: orthogonal, each of mean 0 and norm 1.

    They are products of the 3-point discrete cosine transform's basis: two edges, two lines, a saddle and a spot.
    """
    level, edge, line = np.array([1, 1, 1]) / 3**0.5, np.array([1, 0, -1]) / 2**0.5, np.array([1, -2, 1]) / 6**0.5
    factors = [(level, edge), (edge, level), (level, line), (line, level), (edge, edge), (line, line)]
    return np.stack([np.outer(down, across) for down, across in factors])


def _place(
    together: NDArray[np.int64], alone: NDArray[np.int64], rng: np.random.Generator
) -> list[tuple[int, tuple[int, int]]]:
    """Each feature shown, with the row and column of its pattern's first pixel; drawn again until all fit."""
    offsets = _PLACES[together] - _PLACES[together].min(axis=0)
    corners = SIDE - _PATTERN + 1
    while True:
        block = rng.integers(corners - offsets.max(axis=0)) + offsets
        placed = [
            (int(feature), (int(row), int(column))) for feature, (row, column) in zip(together, block, strict=True)
        ]
        free = np.ones((corners, corners), bool)
        for _, corner in placed:
            _clear(free, corner)
        for feature in alone:
            options = np.argwhere(free)
            if not len(options):
                break
            row, column = options[rng.integers(len(options))]
            placed.append((int(feature), (int(row), int(column))))
            _clear(free, placed[-1][1])
        else:
            return placed


def _clear(free: NDArray[np.bool_], corner: tuple[int, int]) -> None:
    """Mark, in place, every corner that is too near to this one."""
    top, left = (max(0, at - _APART + 1) for at in corner)
    free[top : corner[0] + _APART, left : corner[1] + _APART] = False
