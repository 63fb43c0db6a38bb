"""How right and wrong answers on a split become one score: `training.score`.

Owns which images are averaged over together. Knows nothing of torch, training or storage, so that what trains, what
judges and what is exported mean the same by a study's accuracy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.trainingconfig import ScoreName

Parts = tuple[NDArray[np.int64], ...]
"""Indices into a split, `(n_images of the part,)` each: a score is the mean over the parts of the share correct."""


def parts_of(labels: NDArray[np.int64], score: ScoreName) -> Parts:
    """The parts of a split that count alike.

    Args:
        labels: Of the split's images, shape `(n_images,)`.
        score: `accuracy` has one part, all images; `balanced_accuracy` one for each class the split has (Brodersen
            2010, doi:10.1109/ICPR.2010.764), so that a classifier that always says one class scores 1 / classes.
    """
    match score:
        case "accuracy":
            return (np.arange(len(labels)),)
        case "balanced_accuracy":
            return tuple(np.flatnonzero(labels == label) for label in np.unique(labels))


def accuracy(correct: NDArray[np.bool_], parts: Parts) -> float:
    """The score, a fraction in [0, 1]: mean over the parts of the share of their images classified correctly.

    Args:
        correct: Per image of the split, whether it is; shape `(n_images,)`.
        parts: See `parts_of`.
    """
    return float(np.mean([correct[part].mean() for part in parts]))


def blind_score(labels: NDArray[np.int64], score: ScoreName) -> float:
    """The score of always naming the commonest class, a fraction: what a network that learned nothing may get.

    Args:
        labels: Of the split's images, shape `(n_images,)`.
        score: The study's.
    """
    return accuracy(labels == np.bincount(labels).argmax(), parts_of(labels, score))


def effective_images(sizes: Sequence[int]) -> float:
    """Images of a split with equal parts whose score varies over images as much as one with parts of these sizes.

    The number of images for one part and for equal ones; less the more unequal they are, since the score then hangs on
    the few images of the small ones. Assumes that images of all parts vary alike.

    Args:
        sizes: Images of each part, at least 1.
    """
    return len(sizes) ** 2 / sum(1 / size for size in sizes)
