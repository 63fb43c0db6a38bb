import io

import pytest
from rich.table import Table
from rich.text import Text

from search.printable import PlainConsole, printable

HOSTILE = "a\x1b]0;title\x07b\x1b[31mc\x9b2Jd\re\x08f\x7f\u202eg"


def test_what_a_terminal_would_obey_is_a_question_mark():
    assert printable(HOSTILE) == "a?]0;title?b?[31mc?2Jd?e?f??g"


@pytest.mark.parametrize("text", ["", "a\tb\nc", "Ünïcödé \N{NO-BREAK SPACE}\N{MINUS SIGN} 日本 ±"])
def test_other_text_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize("shown", [HOSTILE, Text(HOSTILE), Table(title=HOSTILE), Table(HOSTILE)])
def test_nothing_shown_reaches_a_terminal_but_colours_of_our_own(shown):
    console = PlainConsole(
        file=io.StringIO(), force_terminal=True, width=200, color_system="standard", highlight=False
    )
    console.print(shown)
    console.print("[bold]own[/]")
    written = console.file.getvalue()
    assert "\x1b[1mown\x1b[0m" in written
    for obeyed in ("\x1b]", "\x1b[31m", "\x9b", "\x07", "\x08", "\x7f", "\u202e"):
        assert obeyed not in written
