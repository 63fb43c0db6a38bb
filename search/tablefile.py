"""Reads a table of known accuracies from a CSV file, and says what is wrong with one.

Knows nothing of studies: names of columns come from the configuration, values go to `table`.
"""

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from search.cost import COST_NAMES, CostName
from search.errors import DataError
from search.table import Table
from search.tableconfig import ColumnsConfig

LARGEST_FILE = 512 * 2**20
_SCHEDULE = re.compile(r"[1-9][0-9]{0,11}(?:[-:][1-9][0-9]{0,11})*")
_COST = re.compile(r"[1-9][0-9]{0,17}")

Lines = list[list[str]]
_T = TypeVar("_T")


def read_table(path: Path, columns: ColumnsConfig, percent: bool) -> Table:
    """The table in a CSV file with a header.

    Args:
        path: The file, of at most `LARGEST_FILE` bytes; 32,768 rows load in a fraction of a second.
        columns: What its columns are called. A cost's column may be absent under its own name.
        percent: Whether accuracies run to 100 instead of 1.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds a value that is none; the message names the line.
    """
    content = _content(path)
    try:
        header, *lines = csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        msg = f"{path} is no CSV file ({error}); save it as UTF-8 text of comma-separated values with a header"
        raise DataError(msg) from None
    while lines and not any(lines[-1]):  # blank lines that spreadsheets leave at the end
        lines.pop()
    if not lines or any(len(line) != len(header) for line in lines):
        uneven = next((number for number, line in enumerate(lines, 2) if len(line) != len(header)), 2)
        msg = f"{path}: line {uneven} is not one row of {len(header)} values under {', '.join(header)}; mend it"
        raise DataError(msg)
    _check_header(path, header, columns)
    scores = np.array([_parsed(path, header, lines, name, _accuracy) for name in columns.accuracy]).T
    scores = scores / 100 if percent else scores
    _check_scores(path, scores, percent)
    told: dict[CostName, str] = {cost: getattr(columns, cost) for cost in COST_NAMES}
    costs = {
        cost: np.array(_parsed(path, header, lines, name, _cost), np.int64)
        for cost, name in told.items()
        if name in header
    }
    filters = _filters(path, _parsed(path, header, lines, columns.schedule, _schedule))
    return Table(path.stem, filters, scores, costs, hashlib.sha256(content).hexdigest())


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        msg = f"table {path} cannot be read ({error.strerror}); name an existing CSV file as table.path"
        raise DataError(msg) from None
    if len(content) > LARGEST_FILE:
        msg = f"table {path} is larger than {LARGEST_FILE // 2**20} MiB, the most that is read; give a smaller one"
        raise DataError(msg)
    return content


def _check_header(path: Path, header: list[str], columns: ColumnsConfig) -> None:
    asked = [columns.schedule, *columns.accuracy]
    asked += [getattr(columns, cost) for cost in COST_NAMES if getattr(columns, cost) != cost]
    for name in asked:
        if header.count(name) != 1:
            found = f"column {name!r} twice or more" if name in header else f"no column {name!r}"
            hint = ", and separate values by commas" if ";" in header[0] else ""
            msg = f"{path} has {found}; it has {', '.join(header)}: say under table.columns which is which{hint}"
            raise DataError(msg)


def _parsed(path: Path, header: list[str], lines: Lines, name: str, parse: Callable[[str], _T]) -> list[_T]:
    """One column's values."""
    place = header.index(name)
    values: list[_T] = []
    try:
        values.extend(parse(line[place]) for line in lines)
    except ValueError as error:
        came = lines[len(values)][place][:60]
        msg = f"{path}: line {len(values) + 2}, column {name!r}: {came!r} is no {error}"
        raise DataError(msg) from None
    return values


def _schedule(text: str) -> tuple[int, ...]:
    if not _SCHEDULE.fullmatch(text):
        msg = "schedule; write the filters of each stage joined by '-' or ':', such as 8-16-32"
        raise ValueError(msg)
    return tuple(map(int, re.split("[-:]", text)))


def _accuracy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        msg = "accuracy; write a number from 0 to 1, or to 100 with table.percent: every schedule needs every column"
        raise ValueError(msg)
    return value


def _cost(text: str) -> int:
    if not _COST.fullmatch(text):
        msg = "cost; write a whole number of at least 1"
        raise ValueError(msg)
    return int(text)


def _check_scores(path: Path, scores: NDArray[np.float64], percent: bool) -> None:
    above = np.argwhere(scores > 1)
    if len(above):
        row, column = above[0]
        hint = "; set table.percent: true if they run to 100" if not percent else ""
        msg = f"{path}: line {row + 2}: accuracy {scores[row, column]:g} is above 1{hint}"
        raise DataError(msg)


def _filters(path: Path, schedules: list[tuple[int, ...]]) -> NDArray[np.int64]:
    stages, seen = len(schedules[0]), set[tuple[int, ...]]()
    for number, schedule in enumerate(schedules, 2):
        if len(schedule) != stages or schedule in seen:
            fault = "stands in the table before" if schedule in seen else f"has {len(schedule)} stages, not {stages}"
            text = "-".join(map(str, schedule))
            msg = f"{path}: line {number}: schedule {text} {fault}; give every schedule one row, all of as many stages"
            raise DataError(msg)
        seen.add(schedule)
    return np.array(schedules, np.int64)
