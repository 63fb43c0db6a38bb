"""What a user should know of images that were read, a sentence each."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.data import TEST
from search.sources.imagefile import Head

_SHOWN = 3


def such_as(count: int, noun: str, examples: Sequence[str]) -> str:
    """A count, its noun and the first few: `5 files, such as a.txt, b.txt and c.txt`; all of them where they are few.

    Args:
        count: How many there are.
        noun: What they are, in the singular.
        examples: Some or all of them.
    """
    shown = list(examples[:_SHOWN])
    named = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    return f"{count:,} {noun}{'' if count == 1 else 's'} ({'such as ' if count > len(shown) else ''}{named})"


def notes_on(
    heads: Sequence[Head],
    digests: Sequence[bytes],
    names: Sequence[str],
    labels: NDArray[np.int64],
    own_split: NDArray[np.int8] | None,
) -> list[str]:
    """What is to be said of images that could all be used.

    Args:
        heads: What each was like.
        digests: Equal for equal pixels.
        names: What each is called.
        labels: Class of each, shape `(n_images,)`.
        own_split: Split of each, shape `(n_images,)`, or None.
    """
    notes = []
    grey = [name for name, head in zip(names, heads, strict=True) if head.grey]
    if 0 < len(grey) < len(heads):
        notes.append(f"{such_as(len(grey), 'grey image', grey)} among colour: given three equal channels")
    misnamed = [f"{name}, a {head.format}" for name, head in zip(names, heads, strict=True) if head.misnamed]
    if misnamed:
        notes.append(
            f"{such_as(len(misnamed), 'file', misnamed)} in another format than the name says: read all the same"
        )
    return notes + _copies(digests, names, labels, own_split)


def _copies(
    digests: Sequence[bytes], names: Sequence[str], labels: NDArray[np.int64], own_split: NDArray[np.int8] | None
) -> list[str]:
    """Sentences on images that are equal pixel for pixel, where that can mislead."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        alike[digest].append(index)
    repeated = [indices for indices in alike.values() if len(indices) > 1]
    notes = []
    torn = [names[i] for indices in repeated if len({*labels[indices]}) > 1 for i in indices]
    if torn:
        notes.append(
            f"{such_as(len(torn), 'image', torn)} with copies under another class: one of them is mislabelled"
        )
    if own_split is None or TEST not in own_split:
        copies = [names[i] for indices in repeated for i in indices[1:]]
        if copies:
            notes.append(
                f"{such_as(len(copies), 'image', copies)} that copy another: the splits may tear them apart, which "
                "flatters test accuracy; remove them, or keep them together by data.groups"
            )
        return notes
    tested = own_split == TEST
    seen = [names[i] for indices in repeated if len({*tested[indices]}) > 1 for i in indices if tested[i]]
    if seen:
        notes.append(
            f"{such_as(len(seen), 'test image', seen)} with copies outside the test split: they flatter test accuracy"
        )
    return notes
