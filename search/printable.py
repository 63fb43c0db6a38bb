"""Text that a terminal shows and does not obey: whatever a file or a study holds, it is read by people here."""

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# C0 but for tab and line feed, DEL and C1, by which terminals are told to do things; and what turns the direction
# of writing, by which one text passes for another.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text, every character that a terminal would obey replaced by a question mark."""
    return _OBEYED.sub("?", text)


class PlainConsole(Console):
    """A console whose own colours and moves are the only ones."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See rich: what everything shown passes through."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
