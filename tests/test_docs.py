"""What the pages in `docs/` say is so: commands run, output is as shown, links lead somewhere, nothing is left out."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_origin
from urllib.request import urlopen

import pytest
import typer
from doc_pages import DOCS, LATER, PAGES, ROOT, Command, Reader, agrees, blocks, commands

import search
from search import cli
from search.config import StudyConfig
from search.leaderboard import COLUMNS as LEADERBOARD_COLUMNS
from search.records import RUN_COLUMNS, TRIAL_COLUMNS
from search.section import Section

sys.path.insert(0, str(DOCS))
import generate

TUTORIAL = DOCS / "tutorial.md"
GENERATED = {DOCS / "reference" / f"{name}.md" for name in ("configuration", "commands")}
WRITTEN = [page for page in PAGES if page not in GENERATED]
RUN = [
    page
    for page in WRITTEN
    if page != TUTORIAL and any(b.language in ("console", "sh", "python") for b in blocks(page.read_text()))
]
VERBS = {name: verb for name, verb in typer.main.get_command(cli.app).commands.items() if not verb.hidden}
OPTIONS = {name: {"--help", *(text for each in verb.params for text in each.opts)} for name, verb in VERBS.items()}


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """A folder for PATH that has the installed command, running this code."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "filter-search"
    script.write_text(
        f"#!{sys.executable}\nimport sys\n\nfrom search.cli import main\n\n"
        'if __name__ == "__main__":\n    sys.exit(main())\n'
    )
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def after_the_tutorial(shim, tmp_path_factory):
    """The folder of someone who has done the tutorial."""
    folder = tmp_path_factory.mktemp("tutorial")
    Reader(folder, shim).follow(TUTORIAL.read_text(), TUTORIAL.name)
    return folder


@pytest.fixture
def reader(shim, tmp_path):
    return Reader(tmp_path, shim)


@pytest.mark.integration
def test_the_tutorial_runs_as_shown(after_the_tutorial):
    verdicts = json.loads((after_the_tutorial / "studies" / "first" / "verdict.json").read_text())["verdicts"]
    assert [each["rule_schedule"] for each in verdicts] == ["4-7-15", "4-9-18"]


@pytest.mark.integration
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_runs_as_shown(page, reader, request):
    text = page.read_text()
    if LATER in " ".join(text.split()):
        shutil.copytree(request.getfixturevalue("after_the_tutorial"), reader.folder, dirs_exist_ok=True)
    (reader.folder / "configs").symlink_to(ROOT / "configs")
    reader.follow(text, name_of(page))


@pytest.mark.parametrize(
    "block",
    [
        "console\n$ filter-search chekc x.yaml\n",
        "console\n$ filter-search init --date photos\n",
        "console\n$ filter-search status nowhere\n$ echo $?\n3\n",
        "console\n$ filter-search init --help\n...\nno such line\n...\n",
        "sh\nfalse\ntrue\n",
        "python\nfrom search import load_studies\n",
        "python\nprint('no')\n```\n\n```text\nyes\n",
    ],
)
def test_a_page_that_is_wrong_would_be_noticed(block, reader):
    with pytest.raises(AssertionError, match=r"page\.md:"):
        reader.follow(f"# A page\n\n```{block}```\n", "page.md")


def test_a_page_that_is_right_passes(reader):
    reader.follow(
        "Save this as `a/b.txt`:\n\n```text\nyes\n```\n\n"
        "```console\n$ cat a/b.txt\nyes\n$ cat c\n...\n$ echo $?\n1\n```\n",
        "page.md",
    )


@pytest.mark.parametrize(
    ("command", "shown", "said", "agree"),
    [
        ("check", ["a", "...", "d"], "a\nb\nc\nd\n", True),
        ("check", ["a", "d"], "a\nb\nd\n", False),
        ("check", ["...", "c"], "a\nb\nc\nd\n", False),
        ("check", ["...", "c", "..."], "a\nb\nc\nd\n", True),
        ("check", ["...", "c", "a", "..."], "a\nb\nc\nd\n", False),
        ("check", ["takes 12 s ..."], "takes 4 min with 2 workers\n", True),
        ("check", ["4-7-15   96%"], "4-7-15 96%\n", True),
        ("check", ["4-7-15 96%"], "4-7-15 95%\n", False),
        ("run", ["best 8-8-8 97.5 near-optimal"], "best 12-6-10 98.1 undecided\n", True),
        ("run", ["best 8-8-8 97.5 near-optimal"], "worst 12-6-10 98.1 undecided\n", False),
        ("run", ["..."], "", True),
    ],
)
def test_output_is_held_against_the_page(command, shown, said, agree):
    assert agrees(Command(f"filter-search {command} x", tuple(shown), 1), said) is agree


def test_commands_may_run_over_several_lines():
    (block,) = blocks("```console\n$ a \\\n    b\nshown\n$ c\n```\n")
    assert [(each.text, each.shown) for each in commands(block)] == [("a \\\n    b", ("shown",)), ("c", ())]


@pytest.mark.integration
def test_the_pages_build_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    built = sorted(tmp_path.rglob("*.html"))
    assert {str(page.relative_to(DOCS).with_suffix(".html")) for page in PAGES} <= {
        str(page.relative_to(tmp_path)) for page in built
    }
    for page in built:  # offline: nothing is fetched from elsewhere to show a page
        fetched = re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]+", page.read_text())
        assert not fetched, page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def anchors(text):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#{1,3} (.+)$", without_code, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_leads_to_every_page():
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)\)", (DOCS / "index.md").read_text()))
    assert {name_of(page) for page in PAGES} - {"index.md"} == linked


@pytest.mark.parametrize(
    ("name", "content"), [("configuration", generate.configuration), ("commands", generate.commands)]
)
def test_generated_pages_are_those_of_the_code(name, content):
    written = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert written == content(), "write them again with `make docs` or `python docs/generate.py`"


def test_the_configuration_reference_has_every_field():
    headings = set(re.findall(r"^##+ (\S+)$", (DOCS / "reference" / "configuration.md").read_text(), re.M))
    keys = set(keys_of(StudyConfig))
    assert len(keys) > 80
    assert keys <= headings
    assert headings - keys <= {"The"}


def keys_of(section, prefix=""):
    """Every key of a section with its dotted path, those of a list's entries under N, read off the types."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for inner, listed in sections_in(field.annotation):
            yield from keys_of(inner, f"{prefix}{name}.{'N.' * listed}")


def sections_in(annotation, listed=False):
    """The sections an annotation has, and whether they are entries of a list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, listed
    for inner in get_args(annotation):
        yield from sections_in(inner, listed or get_origin(annotation) is tuple)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_verb_or_an_option_that_is_none(page):
    for verb, options in verbs_and_options(page.read_text()):
        assert verb in VERBS
        assert options <= OPTIONS[verb] | MISTAKES, verb
    named = set(re.findall(r"`(--[a-z-]+)[ =`]", page.read_text()))
    assert named <= set().union({"--debug", "--signal"}, *OPTIONS.values())  # --signal is Slurm's


MISTAKES = {"--trails"}
"""Options that a page gives wrongly to show what happens."""


def verbs_and_options(text):
    """Each verb that a page's code names, with the options given to it."""
    fenced = [block.text for block in blocks(text)]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for code in (*fenced, *spans):
        for line in code.replace("\\\n", " ").splitlines():
            for verb, rest in re.findall(r"(?<![/\w-])filter-search (?:--debug )?([a-z]+)([^|;&]*)", line):
                yield verb, set(re.findall(r"(?<=\s)--[a-z-]+", rest))


def test_a_verb_or_an_option_that_is_none_would_be_noticed():
    assert list(verbs_and_options("`filter-search fly` and\n```sh\nx; filter-search run a \\\n  --fast\n```\n")) == [
        ("run", {"--fast"}),
        ("fly", set()),
    ]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("trials.csv", set(TRIAL_COLUMNS)),
        ("runs.csv", set(RUN_COLUMNS)),
        ("leaderboard.csv", set(LEADERBOARD_COLUMNS)),
    ],
)
def test_every_column_is_explained(heading, names):
    assert explained(heading) == names


def explained(heading):
    """What the tables below a heading explain, by their first column; one set, or a list of them."""
    text = (DOCS / "reference" / "files.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    tables = [set(re.findall(r"^\| `(\w+)` \|", part, re.M)) for part in section.split("\n| key |")[1:] or [section]]
    return tables if len(tables) > 1 else tables[0]


@pytest.mark.integration
def test_every_key_and_file_of_a_study_is_explained(after_the_tutorial):
    study = after_the_tutorial / "studies" / "first"
    verdict = json.loads((study / "verdict.json").read_text())
    assert explained("verdict.json") == [set(verdict), set(verdict["verdicts"][0])]
    named = set(re.findall(r"^\| `([\w.]+)(?:/\w*/?)?` \|", (DOCS / "reference" / "files.md").read_text(), re.M))
    best = study / "best" / "params-1500"
    written = {path.name for path in (*study.iterdir(), *best.iterdir()) if not path.name.startswith(".")}
    assert written - {"__pycache__"} <= named  # Python's own, once the tutorial has loaded model.py


@pytest.mark.integration
def test_the_dashboard_of_the_tutorial_answers(after_the_tutorial, shim):
    served = subprocess.Popen(
        [shim / "filter-search", "dashboard", "first", "--port", "0"],
        cwd=after_the_tutorial,
        env=Reader(after_the_tutorial, shim).environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = served.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/1", address)
        with urlopen(address, timeout=60) as page:
            assert page.status == 200
    finally:
        served.terminate()
        served.communicate(timeout=60)
    assert served.returncode == 143


def test_every_public_name_is_documented():
    documented = re.findall(r"^\.\. auto\w+:: search\.(\w+)$", (DOCS / "reference" / "python.md").read_text(), re.M)
    assert documented == search.__all__


def test_troubleshooting_has_every_exit_code():
    page = (DOCS / "troubleshooting.md").read_text()
    epilog = typer.main.get_command(cli.app).epilog
    codes = re.findall(r"\b\d+\b", epilog)
    assert re.findall(r"\b\d+\b", " ".join(re.findall(r"^## (.*)$", page, re.M))) == codes
    shown = re.findall(r"^\$ echo \$\?\n(\d+)$", page, re.M)
    assert set(shown) == set(codes) - {"0", "1", "130"}  # 1 has its own test, 130 is shown on the page on resuming


def test_what_nobody_thought_of_looks_as_shown(monkeypatch, capsys):
    def fail(*_):
        msg = "what nobody thought of"
        raise RuntimeError(msg)

    monkeypatch.setattr("search.configfile.read", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["filter-search", "check", "x.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert f"```text\n{capsys.readouterr().err}```" in (DOCS / "troubleshooting.md").read_text()


def test_error_rates_are_the_calibrations():
    with (ROOT / "studies" / "calibration" / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    worst = max(int(cell["wrong"]) / int(cell["simulations"]) for cell in cells)
    page = " ".join((DOCS / "science.md").read_text().split())
    said = (
        f"{len(cells)} kinds of confirmation, each simulated {int(cells[0]['simulations']):,} times: in the worst of"
    )
    assert f"{said} them {100 * worst:.2g} % of the verdicts were wrong" in page


def test_what_the_index_says_of_digits_is_what_was_found():
    found = json.loads((ROOT / "studies" / "digits" / "verdict.json").read_text())["verdicts"]
    regrets = {each["cost"]: each["regret"] for each in found}
    scarce = regrets.pop("params")
    page = " ".join((DOCS / "index.md").read_text().split())
    assert f"loses {100 * scarce['low']:.2f} to {100 * scarce['high']:.2f} points where parameters are scarce" in page
    assert set(regrets) == {"macs", "activations", "memory"}
    assert max(each["high"] for each in regrets.values()) < 0.005


def test_make_targets_named_exist():
    named = {name for page in PAGES for name in re.findall(r"\bmake ([a-z-]+)\b(?=`|$)", page.read_text(), re.M)}
    defined = set(re.findall(r"^([a-z-]+):", Path(ROOT / "Makefile").read_text(), re.M))
    assert named
    assert named <= defined
