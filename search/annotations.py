"""The study's own words and pictures, kept in its Optuna study for Optuna's dashboard to show.

Owns what is kept and under which names; the words come from `wording`, the pictures from `pictures`. The dashboard
shows them from the study itself, so `optuna-dashboard` on the bare storage does too.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note, save_note, save_plotly_graph_object

from search import wording
from search.config import StudyConfig
from search.cost import amount
from search.progress import best_so_far
from search.study import Purpose, Storage

if TYPE_CHECKING:  # what makes findings takes seconds to load, and the dashboard only keeps what was made of them
    from search.findings import Finding, Findings
    from search.pictures import Picture

_KEPT = "annotated"
_LARGEST_PLOT = 250_000  # characters; some 2,000 trials
_GROWTH = 1.1  # more runs than that many times those before are worth new pictures


@dataclass(frozen=True)
class Moment:
    """How far a study is, as far as its pictures care.

    Attributes:
        phase: As in `progress`.
        runs: Training runs carried out.
        idle: Whether no job waits or is being carried out.
    """

    phase: Purpose
    runs: int
    idle: bool

    @classmethod
    def of(cls, trials: Mapping[Purpose, Sequence[FrozenTrial]]) -> Self:
        """What a study's trials say."""
        searched = all(trial.state.is_finished() for trial in trials["search"])
        every = [trial for purpose in trials for trial in trials[purpose]]
        return cls(
            "probe" if trials["probe"] else "confirm" if searched else "search",
            sum(len(trial.user_attrs.get("runs", ())) for trial in every if trial.state.is_finished()),
            not any(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in every),
        )

    def outdates(self, earlier: "Moment | None") -> bool:
        """Whether pictures of an earlier moment should be made anew."""
        if earlier is None or (self.phase, self.idle) != (earlier.phase, earlier.idle):
            return True
        return self.runs > _GROWTH * earlier.runs


@dataclass(frozen=True)
class Annotations:
    """What is kept in a study for the dashboard.

    Attributes:
        moment: How far the study was.
        note: Of the study, in Markdown.
        plots: Plotly figures as JSON, by the name of the picture.
    """

    moment: Moment
    note: str
    plots: Mapping[str, str]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `asdict` made."""
        return cls(Moment(**values["moment"]), values["note"], values["plots"])


def annotate(storage: Storage, findings: "Findings") -> None:
    """Keep the words and pictures of findings in their studies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since Optuna 3.2, and the dashboard asks for it
        storage.search.set_metric_names(objective_names(findings.plan.config))
    keep(storage.search, annotations(storage, findings))


def annotations(storage: Storage, findings: "Findings") -> Annotations:
    """The words and pictures of findings."""
    from search.figures import TrialPoint  # with what follows, loads both plotting libraries
    from search.pictures import pictures

    trials: dict[Purpose, list[FrozenTrial]] = {
        "search": storage.trials("search"),
        "confirm": storage.trials("confirm"),
        "probe": storage.trials("probe"),
    }
    complete = [TrialPoint.of(trial) for trial in trials["search"] if trial.state is TrialState.COMPLETE]
    shown = list(pictures(findings, complete))
    note = "\n\n".join([*_note(storage, findings), *_readings(shown)])
    return Annotations(Moment.of(trials), note, {each.name: _fitted(each) for each in shown})


def _fitted(picture: "Picture") -> str:
    """A picture as JSON, with its title, and as high as the place it is shown in, which cuts off what is higher."""
    figure = picture.plot()
    margin = figure.layout.margin.t or 40
    title = {"text": picture.title, "x": 0.02, "y": 0.99, "yref": "container", "yanchor": "top", "font": {"size": 16}}
    figure.update_layout(height=None, title=title, margin_t=margin + 30)
    text: str = figure.to_json()
    return text


def objective_names(config: StudyConfig) -> list[str]:
    """The name of every value of a trial."""
    score = f"validation {wording.score_text(config.training.score)}"
    match config.search.objective:
        case "constrained":
            return [score]
        case "weighted":
            return [f"weighted {score}"]
        case "pareto":
            return [score, "parameters", "training memory in bytes"]


def keep(study: optuna.Study, made: Annotations) -> None:
    """Save annotations in an Optuna study; a note that somebody edited since is left as it is.

    Large pictures are left out: a storage takes 2,000 characters at a time, and Optuna's dashboard looks through all
    of those once for every trial.
    """
    known: dict[str, Any] = study.user_attrs.get(_KEPT, {})
    if not is_edited(get_note(study), known) and made.note != get_note(study):
        save_note(study, made.note)
    small = {name: plot for name, plot in made.plots.items() if len(plot) <= _LARGEST_PLOT}
    digests = {name: _digest(plot) for name, plot in small.items()}
    for name, plot in small.items():
        if digests[name] != known.get("plots", {}).get(name):
            # It takes what a figure says of itself as JSON and no more, so none is built to say it again.
            save_plotly_graph_object(study, cast("Any", _Plot(plot)), graph_object_id=plot_id(name))
    about = {"note": _digest(made.note), "plots": digests, "whole": len(small) == len(made.plots)}
    study.set_user_attr(_KEPT, {"moment": asdict(made.moment)} | about)


def kept(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a study's attributes say of the annotations it has; empty where it has none."""
    found: Mapping[str, Any] = attrs.get(_KEPT, {})
    return found


def is_edited(note: str, known: Mapping[str, Any]) -> bool:
    """Whether a study's note is somebody's own, by what `kept` says."""
    return bool(note) and _digest(note) != known.get("note")


def opening(config: StudyConfig) -> str:
    """What a study's note begins with: what is asked."""
    return f"# {config.question or wording.question(config.name, config.rules.judged)}"


def plot_id(name: str) -> str:
    """Under which id a picture is kept."""
    return f"filter-search-{name}"


class _Plot(NamedTuple):
    json: str

    def to_json(self) -> str:
        return self.json


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()


def _note(storage: Storage, findings: "Findings") -> Iterator[str]:
    config = findings.plan.config
    yield opening(config)
    yield f"**{wording.answer(findings.findings)}**"
    if findings.findings:
        yield "\n".join(f"- {_verdict(finding, config)}" for finding in findings.findings)
    if forecast := wording.forecast_note(findings.findings):
        yield forecast
    yield _best(storage, findings)
    if findings.rule_of_thumb:
        yield "## Rule of thumb"
        yield "\n".join(f"- {wording.ratio_sentence(each)}" for each in findings.rule_of_thumb)
    yield "The whole answer, with its figures, tables and doubts, is `report.html` in the study's folder."


def _verdict(finding: "Finding", config: StudyConfig) -> str:
    sentences = (
        wording.headline(finding, config.confirm, config.training.score),
        wording.price_of_decision(finding),
        wording.collapse_sentence(finding),
    )
    return " ".join(filter(None, sentences))


def _best(storage: Storage, findings: "Findings") -> str:
    """A table of the best confirmed schedule of every budget; before the first confirmation, of the best trial."""
    from search.findings import by_budget  # heavy, see above

    best = by_budget(findings.findings)
    if best:
        rows = [
            "## Best confirmed",
            "",
            "| within | schedule | from | on the test split |",
            "| --- | --- | --- | --- |",
        ]
        for budget, each in best.items():
            origin, said = wording.origin_text(each.origin), wording.accuracy_text(each)
            rows.append(f"| {wording.short_budget(budget)} | {each.schedule} | {origin} | {said} |")
        return "\n".join(rows)
    rows = ["## Best trials so far", "", "| within | schedule | on the validation split |", "| --- | --- | --- |"]
    for found in best_so_far(storage, findings.plan.config.budgets):
        within = f"{amount(found.budget.cost, found.budget.limit)} {found.budget.cost}"
        rows.append(f"| {within} | {found.schedule} | {wording.percent(found.accuracy)} |")
    rows += ["", "The highest of many noisy scores is mostly luck: what is confirmed comes after the search."]
    return "\n".join(rows)


def _readings(shown: "Sequence[Picture]") -> Iterator[str]:
    if shown:
        yield "## How to read the pictures"
        yield "\n".join(f"- {each.title}: {each.reading}" for each in shown)
