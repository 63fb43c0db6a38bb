"""A table that leaves out what matters least where a console is too narrow for all of it.

Owns how columns give way. Knows nothing of what they mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

_USUAL_WIDTH = 80  # of a terminal; beyond it nothing is set apart for comfort alone
_UNBOUNDED = 100_000


@dataclass(frozen=True)
class Column:
    """A column of a table that narrows.

    Attributes:
        heading: Its heading.
        importance: Columns of the lowest number leave first, all of it together; those of the highest never.
        right: Whether it is set flush right.
        wraps: Whether its words may go below each other once a column has left.
        width: Least characters, so that several tables align.
    """

    heading: str
    importance: int
    right: bool = False
    wraps: bool = False
    width: int | None = None


class NarrowingTable:
    """A table with as many of its columns as the console can show without cutting anything.

    Where not even the most important fit, they are folded.

    Args:
        columns: From left to right.
        rows: Cells in console markup, shape `(n_rows, n_columns)`.
        title: Stands above it.
    """

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        self.columns, self.rows, self._title = columns, rows, title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the first of its layouts that fits."""
        yield next(self._fitting(console, options), self._layout(max(self._levels), padding=0, folds=True))

    @property
    def _levels(self) -> list[int]:
        return sorted({column.importance for column in self.columns})

    def _fitting(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        for level in self._levels:
            for padding, most in ((1, min(options.max_width, _USUAL_WIDTH)), (0, options.max_width)):
                table = self._layout(level, padding)
                size = Measurement.get(console, options.update(width=_UNBOUNDED), table)
                whole = padding or level == self._levels[0]  # words go below each other in the last resort alone
                if (size.maximum if whole else size.minimum) <= most:
                    yield table

    def _layout(self, level: int, padding: int, folds: bool = False) -> Table:
        """The columns at least so important, with `padding` and the box's one space between them."""
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding, 0, 0),
            title=self._title, title_justify="left", title_style="bold",
        )  # fmt: skip
        kept = [place for place, column in enumerate(self.columns) if column.importance >= level]
        for column in (self.columns[place] for place in kept):
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=not (folds or column.wraps),
                overflow="fold",
                min_width=None if folds else column.width,
            )
        for row in self.rows:
            table.add_row(*(row[place] for place in kept))
        return table
