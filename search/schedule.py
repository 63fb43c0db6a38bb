"""A schedule: how many filters each stage has, and its text form `8-16-32`."""

import re
from dataclasses import dataclass
from functools import cached_property

from search.errors import ConfigError

_SCHEDULE = re.compile(r"[1-9][0-9]{0,39}(-[1-9][0-9]{0,39})*")


@dataclass(frozen=True, order=True)
class FilterSchedule:
    """The filters of every stage, first stage first.

    Args:
        filters: Output channels of each stage, all at least 1; shape `(n_stages,)`.

    Raises:
        ValueError: No stage, or a stage with less than one filter.
    """

    filters: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.filters or any(f < 1 for f in self.filters):
            msg = f"a schedule needs one or more stages of at least 1 filter, not {self.filters}"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> "FilterSchedule":
        """Read the text form.

        Raises:
            ConfigError: The text is not whole positive numbers joined by `-`.
        """
        if not _SCHEDULE.fullmatch(text):
            msg = f"{text!r} is no schedule; write the filters of each stage joined by '-', such as 8-16-32"
            raise ConfigError(msg)
        return cls(tuple(int(part) for part in text.split("-")))

    def __str__(self) -> str:
        return "-".join(map(str, self.filters))

    def __len__(self) -> int:
        return len(self.filters)

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        """Filters of each stage over those of the stage before, shape `(n_stages - 1,)`."""
        return tuple(b / a for a, b in zip(self.filters, self.filters[1:], strict=False))
