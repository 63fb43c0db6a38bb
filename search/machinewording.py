"""What is said of a study whose software or device changed while it ran."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from search.machine import MACHINE, UNKNOWN, Machine, changed, machines
from search.study import PURPOSES, Purpose, Storage
from search.wording import capital, listed

_MOST_SPANS = 4
_NOUNS: dict[Purpose, str] = {"search": "trial", "confirm": "confirmation job", "probe": "probe"}


def changes(storage: Storage) -> list[str]:
    """What changed while a study ran, a sentence each; none where all of it ran on machines that are equal."""
    known = machines(storage)
    said: list[str] = []
    for purpose in PURPOSES if len(known) > 1 else ():
        ended = [job for job in storage.trials(purpose) if job.state.is_finished()]
        said += changes_among({job.number: job.user_attrs.get(MACHINE) for job in ended}, known, _NOUNS[purpose])
    return said


def changes_among(ran: Mapping[int, object], known: Mapping[str, Machine], noun: str = "trial") -> Iterator[str]:
    """Sentences such as `Trials 40 to 63 ran with torch 2.15.0, those before with 2.14.0`, each with its full stop.

    Args:
        ran: By the numbers of jobs the digest of the machine each ran on; None where nobody noted it.
        known: Machines by their digests; jobs of others are passed over.
        noun: What one job is called.

    Yields:
        One for each machine besides that of the lowest number.
    """
    numbers: dict[str, list[int]] = {}
    for number, digest in sorted(ran.items()):
        if isinstance(digest, str) and digest in known:
            numbers.setdefault(digest, []).append(number)
    before = next(iter(numbers), "")
    for after in list(numbers)[1:]:
        old, new = known[before].facts(), known[after].facts()
        if not (names := changed(old, new)):  # of a study file that says nothing of them
            continue
        told = [f"{name} {new.get(name, UNKNOWN)}" for name in names]
        others = [f"{name} {old.get(name, UNKNOWN)}".removeprefix(f"{name} " * (len(names) == 1)) for name in names]
        if len(numbers[before]) + len(numbers[after]) < len(ran):
            rest = _named(numbers[before], noun)
        else:
            rest = "those before" if numbers[before][-1] < numbers[after][0] else "the others"
        yield f"{capital(_named(numbers[after], noun))} ran with {listed(told)}, {rest} with {listed(others)}."


def _named(numbers: Sequence[int], noun: str) -> str:
    """Jobs by their numbers, which rise: `trial 3`, `trials 3 and 5 to 9`, or between which they are."""
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after > before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after > before + 1), numbers[-1]]
    if len(starts) > _MOST_SPANS:
        return f"{len(numbers)} {noun}s between {numbers[0]} and {numbers[-1]}"
    spans = [str(start) if start == end else f"{start} to {end}" for start, end in zip(starts, ends, strict=True)]
    return f"{noun}s {listed(spans)}"
