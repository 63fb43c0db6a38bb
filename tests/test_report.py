import base64
import gzip
import itertools
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import optuna
import pytest
from optuna.trial import TrialState
from planted_findings import make_findings, make_plan, make_storage

from search.beststage import FiltersInterval
from search.cost import amount
from search.findings import BestFilters, Findings
from search.machine import Machine, note
from search.report import write_report
from search.schedule import FilterSchedule

_VOID = {"meta", "img", "br", "link"}


class _Page(HTMLParser):
    """What a page's tags add up to: whether they nest, its headings, images and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another tag")

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(findings, storage_of_plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    environment = {"command": "filter-search run x.yaml", "hardware": {"processor": "P", "cores": 2, "workers": 1}}
    environment["hardware"]["device"] = "cpu"
    (folder / "environment.json").write_text(json.dumps(environment))
    return write_report(folder, findings, storage_of_plan)


def test_the_page_nests_and_its_headings_descend_without_gaps(written):
    page = _Page(written.read_text())
    assert page.faults == []
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_page_that_does_not_nest_would_be_noticed():
    assert _Page("<p><b>x</p></b>").faults
    assert _Page("<div><p>x</p>").faults


def test_the_answer_comes_first_and_every_verdict_is_told(written):
    text = _Page(written.read_text()).text
    start = text.index("Is doubling the filters at every stage near-optimal?")
    assert text.index("Doubling costs accuracy: within 1,500") < start + 200
    assert start < text.index("What to use") < text.index("Verdicts")
    for said in ("✗ not near-optimal", "✓ near-optimal", "? undecided", "filter-search run x.yaml", "2 cores"):
        assert said in text
    assert "probability of 12 %" in text


def test_the_rule_of_thumb_is_a_row_for_each_budget(written):
    text = _Page(written.read_text()).text
    assert "1,500 parameters 1.19 0.84 to 1.68 outside 0.77 to 1.83" in text
    assert "40,000 MACs 1.54 1 to 2.18 inside" in text


def test_nothing_is_said_of_memory_that_was_not_measured(written):
    assert "predicted and measured" not in _Page(written.read_text()).text


def test_measured_memory_stands_beside_what_was_predicted(findings, plan, tmp_path):
    storage = make_storage(plan, tmp_path)
    measured = {"seed": 1, "accuracy": 0.9, "replicas": 4, "peak_bytes": 3 * 2**20, "peak_reserved_bytes": 4 * 2**20}
    attrs = {"schedule": "8-8-8", "first": 0, "count": 4, "runs": [measured]}
    storage.confirm.add_trial(optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.9, user_attrs=attrs))
    page = _Page(write_report(tmp_path, findings, storage).read_text())
    predicted = 4 * plan.cost_model.costs(FilterSchedule((8, 8, 8))).memory
    assert page.faults == []
    row = f"8-8-8 4 {amount('memory', predicted)} 3.0 MiB 4.0 MiB {3 * 2**20 / predicted:.2f}"
    assert row in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "In 1 measurement, one for each schedule" in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_balanced_study_says_so_wherever_it_names_its_score(storage_of_plan, tmp_path):
    plan = make_plan(training={"score": "balanced_accuracy", "augment": {"crop": 2, "mixup": 0.2}})
    text = _Page(write_report(tmp_path, make_findings(plan), storage_of_plan).read_text()).text
    assert "Accuracies are balanced: the mean over the classes" in text
    assert "test balanced accuracy, %" in text
    assert "The search: balanced accuracy against cost" in text
    assert "images varied by crop (2 pixels), mixup (alpha 0.2); balanced accuracy of the last" in text
    assert not re.search("(test|validation) accuracy", text)
    svg = (tmp_path / "figures" / "accuracy-params.svg").read_text()
    assert "validation balanced accuracy (%)" in svg


def test_numbers_and_schedules_do_not_break(written):
    page = written.read_text()
    assert re.search(r"[0-9] % of the budget", page) is None
    assert re.search("[0-9]\N{NO-BREAK SPACE}% of the budget", page)
    assert '<span class="schedule">8-8-8</span>' in page


def test_the_page_loads_nothing_from_elsewhere(written):
    page = written.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_plots_are_data_that_a_browser_can_read_and_plotly_comes_along(written):
    page = written.read_text()
    plots = re.findall(r'<script type="application/json" id="plot-([a-z-]+)-data">(.*?)</script>', page)
    assert len(plots) == 9
    for name, text in plots:
        assert json.loads(text)["data"], name
        assert f'id="plot-{name}" role="img"' in page
    packed = re.search(r'id="plotly">([^<]+)<', page)[1]
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed))[:200]


def test_every_figure_is_inline_has_words_and_lies_beside_the_page(written):
    images = _Page(written.read_text()).all("img")
    assert len(images) == 9
    for image in images:
        assert len(image["alt"]) > 40
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(content)
        assert ET.fromstring(svg).tag.endswith("svg")
    names = {path.name for path in (written.parent / "figures").iterdir()}
    assert {
        "confirmation.svg",
        "confirmation.png",
        "ratios.svg",
        "falloff.svg",
        "learning-rates.png",
        "accuracy-memory.png",
    } <= names
    assert len(names) == 18


def test_the_same_study_gives_the_same_page(written, findings, storage_of_plan):
    before = written.read_bytes()
    write_report(written.parent, findings, storage_of_plan)
    assert written.read_bytes() == before


def test_what_a_user_wrote_is_text_and_never_markup(findings, storage_of_plan, tmp_path):
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    config = findings.plan.config.model_copy(update={"question": hostile, "name": hostile})
    data = replace(findings.plan.data, name=hostile)
    (tmp_path / "environment.json").write_text(json.dumps({"command": hostile}))
    plan = replace(findings.plan, config=config, source=data)
    path = write_report(tmp_path, replace(findings, plan=plan), storage_of_plan)
    page = _Page(path.read_text())
    assert page.faults == []
    kinds = {attrs.get("type") for attrs in page.all("script")}
    assert kinds == {"application/json", "application/octet-stream", None}
    assert len([attrs for attrs in page.all("script") if "type" not in attrs]) == 1
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert hostile in page.text
    assert "alert(1)" not in "".join(re.findall("<script.*?</script>", path.read_text(), re.DOTALL))


@pytest.mark.parametrize("content", [None, "{not json", "[1]", "{}"])
def test_a_study_without_findings_or_environment_still_has_a_page(plan, storage_of_plan, tmp_path, content):
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    path = write_report(tmp_path, Findings(plan, (), (), None), storage_of_plan)
    page = _Page(path.read_text())
    assert page.faults == []
    assert "Nothing is known yet" in page.text
    assert "Verdicts" not in page.text
    assert len(page.all("img")) == 5


def test_a_change_of_software_or_device_is_shown(plan, tmp_path):
    storage = make_storage(plan, tmp_path)
    unchanged = _Page(write_report(tmp_path, make_findings(plan), storage).read_text())
    assert "changed while it ran" not in unchanged.text
    first = Machine("3.12.4", "0.9.0", None, "<script>alert(1)</script>", {"torch": "2.14.0"})
    for number, machine in enumerate((first, replace(first, device="NVIDIA A100"))):
        digest = note(storage, machine)
        attrs = storage.trials("search", TrialState.COMPLETE)[number].user_attrs | {"machine": digest}
        storage.search.add_trial(optuna.trial.create_trial(value=0.9, user_attrs=attrs))
    page = _Page(write_report(tmp_path, make_findings(plan), storage).read_text())
    assert page.faults == []
    last = len(storage.trials("search")) - 1
    said = f"Trial {last} ran with device NVIDIA A100, trial {last - 1} with <script>alert(1)</script>."
    assert f"changed while it ran {said}" in page.text


def test_a_study_before_its_first_look_and_without_a_surrogate(early, storage_of_plan, tmp_path):
    page = _Page(write_report(tmp_path, early, storage_of_plan).read_text())
    assert page.faults == []
    assert "have not been compared yet" in page.text
    assert "Rule of thumb" not in page.text
    assert "None" not in page.text
    assert "nan" not in page.text
    for absent in ("another learning rate", "brief training", "forecast"):
        assert absent not in page.text


def test_what_turns_or_misleads_is_said_and_warned_of(written):
    page = _Page(written.read_text())
    assert "Would another learning rate have turned it?" in page.text
    assert "Within 1,500 parameters the verdict turns" in page.text
    assert "Is brief training a fair judge?" in page.text
    assert page.text.count("Warning: brief training misleads.") == 1
    assert len([attrs for attrs in page.all("p") if attrs.get("class") == "warning"]) == 1
    assert "\N{MINUS SIGN}0.60 (\N{MINUS SIGN}0.90 to \N{MINUS SIGN}0.20)" in page.text


def test_collapsed_runs_are_told_on_the_card_of_their_verdict_alone(written, findings, storage_of_plan, tmp_path):
    assert "Collapsed" not in _Page(written.read_text()).text
    first = findings.findings[0]
    first = replace(first, rule=replace(first.rule, collapsed=2))
    text = _Page(
        write_report(
            tmp_path, replace(findings, findings=(first, *findings.findings[1:])), storage_of_plan
        ).read_text()
    ).text
    assert text.count("Collapsed") == 1
    assert f"2 of 16 runs of {first.case.schedule}" in text


def test_filters_of_each_stage_and_what_was_asked_afterwards_have_their_tables(findings, storage_of_plan, tmp_path):
    stages = (FiltersInterval(6, 5, 7), FiltersInterval(8, 7, 12), FiltersInterval(11, 8, 13))
    asked = replace(findings.findings[0], margin_asked=0.02)
    more = replace(findings, best_filters=(BestFilters(findings.plan.config.budgets[0], stages),), explored=(asked,))
    page = write_report(tmp_path, more, storage_of_plan).read_text()
    assert "<td>6 (5 to 7)</td><td>8 (7 to 12)</td><td>11 (8 to 13)</td>" in page
    assert "so they explore and do not decide" in page
    assert '<td class="number">2</td>' in page
    plain = write_report(tmp_path, findings, storage_of_plan).read_text()
    assert "Asked afterwards" not in plain
    assert "How many filters each stage wants" not in plain


def test_a_verdict_that_the_search_doubts_is_qualified_at_the_top(findings, storage_of_plan, tmp_path):
    doubted = tuple(replace(each, unexplored_probability=0.9) for each in findings.findings)
    page = write_report(tmp_path, replace(findings, findings=doubted), storage_of_plan).read_text()
    assert "near-optimal against what was confirmed, but" in page.partition("</header>")[0]
    plain = write_report(tmp_path, findings, storage_of_plan).read_text()
    assert "near-optimal against what was confirmed, but" not in plain
