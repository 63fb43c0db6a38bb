"""Runs what the pages in `docs/` show: commands in order, in one folder a page, their output held against the page.

What a reader would type, a test types: lines after `$ ` in a console block, sh blocks as scripts, python blocks as
scripts, and a block after `Save ... as `NAME`:` becomes that file.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LATER = "begins where the [tutorial]"
"""What a page says that needs the folder which the tutorial leaves."""
_FENCE = re.compile(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1[ \t]*$", re.M | re.S)
_SAVED = re.compile(r"\bsave\b[^.]*\bas\s+`([^`]+)`:$", re.I)
_TRAINS = re.compile(r"^filter-search (run|status|confirm|export|train)\b")
_OWN_NUMBERS = re.compile(
    r"not near-optimal|near-optimal|undecided|\d[\d,]*(\.\d+)?([eE]-?\d+)?([-\u2013]\d+(\.\d+)?)*"
)
_TIMES = re.compile(r"\d+(\.\d+)? (s|min|h)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line its text begins at, the file it is to be saved as, and what it
    prints, where a text block follows without a word between.
    """

    language: str
    text: str
    line: int
    saved_as: str | None = None
    prints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A command with the output shown below it."""

    text: str
    shown: tuple[str, ...]
    line: int


def blocks(page):
    """The fenced blocks of a page, in order."""
    found = []
    matches = list(_FENCE.finditer(page))
    for match, after in pairwise([*matches, None]):
        prints = after and after[2] == "text" and not page[match.end() : after.start()].strip()
        before = page[: match.start()].rstrip().rpartition("\n\n")[2]
        saved = _SAVED.search(" ".join(before.split()))
        line = page.count("\n", 0, match.start()) + 2
        shown = tuple(after[3].splitlines()) if prints else ()
        found.append(Block(match[2], match[3], line, saved and saved[1], shown))
    return found


def commands(block):
    """The commands of a console block, each with the output below it."""
    found = []
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if line.startswith("$ "):
            found.append(Command(line[2:], (), number))
        elif found and found[-1].text.endswith("\\") and not found[-1].shown:
            last = found[-1]
            found[-1] = Command(f"{last.text}\n{line}", (), last.line)
        elif found:
            last = found[-1]
            found[-1] = Command(last.text, (*last.shown, line), last.line)
        else:
            raise AssertionError(f"line {number}: a console block begins with a command after '$ '")
    return found


class Reader:
    """Someone who types what a page says, in one folder."""

    def __init__(self, folder, path):
        (folder / "home").mkdir(exist_ok=True)
        self.folder = folder
        self.environment = {
            "PATH": f"{path}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "default",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "80",
            "LANG": "C.UTF-8",
        }

    def type(self, command):
        """What a command prints, errors included, and its exit status."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.stdout, done.returncode

    def follow(self, page, name):
        """Do all that a page says.

        Raises:
            AssertionError: A command fails where the page does not say so, or prints something else than the page.
        """
        for block in blocks(page):
            where = f"{name}:{block.line}"
            if block.saved_as:
                path = self.folder / block.saved_as
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "console":
                self._console(block, name)
            elif block.language == "sh":
                said, status = self.type(f"set -e\n{block.text}")
                assert status == 0, f"{where}: exit status {status}\n{said}"
            elif block.language == "python":
                (self.folder / "example.py").write_text(block.text)
                said, status = self.type("python example.py")
                assert status == 0, f"{where}: exit status {status}\n{said}"
                assert agrees(Command("filter-search run", block.prints, block.line), said), f"{where}: prints\n{said}"

    def _console(self, block, name):
        status = 0
        asked = [*commands(block), Command("", (), 0)]
        for command, after in pairwise(asked):
            said, status = self.type(f"(exit {status})\n{command.text}")
            where = f"{name}:{command.line}: {command.text}"
            assert status == 0 or after.text == "echo $?", f"{where}\nexit status {status}\n{said}"
            assert agrees(command, said), f"{where}\nthe page shows\n{chr(10).join(command.shown)}\nit says\n{said}"


def agrees(command, said):
    """Whether what was printed is what the page shows.

    A line `...` stands for any lines, `...` at the end of a line for the rest of it. Spaces do not count, nor do
    times. What trains has numbers of its own on every machine: there schedules, scores and verdicts are any.
    """
    if not command.shown:
        return True
    own = bool(_TRAINS.match(command.text))
    lines = [_plain(line, own) for line in said.splitlines() if line.strip()]
    parts: list[list[str]] = [[]]
    for line in command.shown:
        if line.strip() == "...":
            parts.append([])
        elif line.strip():
            parts[-1].append(_plain(line, own))
    place = 0
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        starts = range(place, len(lines) - len(part) + 1)
        if last:
            starts = [len(lines) - len(part)] if part and len(parts) > 1 else ([place] if part else [len(lines)])
        if number == 0:
            starts = [0]
        for start in starts:
            if (
                start >= place
                and all(map(_same, part, lines[start : start + len(part)]))
                and (start + len(part) <= len(lines))
            ):
                place = start + len(part)
                break
        else:
            return False
    return len(parts) > 1 or place == len(lines)


def _plain(line, own):
    text = _TIMES.sub("TIME", line.rstrip())
    if own and text.strip() != "...":
        text = _OWN_NUMBERS.sub("N", text)
    return re.sub("\u2500+", "\u2500", " ".join(text.split()))


def _same(shown, line):
    return line.startswith(shown[:-3].rstrip()) if shown.endswith("...") else line == shown
