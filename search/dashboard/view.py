"""What the dashboard serves of a study at one moment: its answers, made before they are asked for.

Optuna's own application answers; what it does not know is added to its answers: which trials are best within which
budget (it looks at values alone), a note on every trial, the study's pictures. Kept apart from the study's attributes
because the application looks through all of them once for every trial, which at 5,000 noted trials takes minutes.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.util import setup_testing_defaults

from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from optuna_dashboard import wsgi

from search import wording
from search.annotations import Annotations, Moment, is_edited, kept, objective_names, opening, plot_id
from search.config import StudyConfig
from search.dashboard.artifacts import FolderArtifacts
from search.dashboard.mirror import Mirror
from search.dashboard.reading import Seen
from search.dashboard.telling import best_within, crowned, note, told
from search.study import PURPOSES, Purpose

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_METRIC_NAMES = "study:metric_names"  # where `Study.set_metric_names` keeps them
_TRIAL_NOTE = re.compile(r"dashboard:\d+:note_")
_ASKED = re.compile(r"/api/studies/(\d+)(/param_importances)?/?")


@dataclass(frozen=True)
class Detail:
    """All that the dashboard's page of one study asks for.

    Attributes:
        about: The study without its trials, as a JSON object.
        trials: Each trial as JSON.
        has_params: Whether its trials have parameters.
    """

    about: str
    trials: Sequence[str]
    has_params: bool

    def after(self, count: int) -> bytes:
        """The answer for a page that has the first `count` trials already."""
        return f'{self.about[:-1]}, "trials": [{", ".join(self.trials[count:])}]}}'.encode()


@dataclass(frozen=True)
class View:
    """A WSGI application over a study at one moment.

    Attributes:
        inner: Optuna's application over the mirror.
        details: By the id of the study.
        moment: How far the study was.
        outdated: Whether its pictures are of an earlier moment, or not all there.
    """

    inner: "WSGIApplication"
    details: Mapping[int, Detail]
    moment: Moment
    outdated: bool

    def __call__(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        asked = _ASKED.fullmatch(environ["PATH_INFO"])
        detail = self.details.get(int(asked[1])) if asked else None
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[0]
        if asked is None or detail is None or not after.isdecimal() or (asked[2] and detail.has_params):
            return self.inner(environ, start)
        # Optuna's divides by the number of parameters, and confirmation runs have none.
        body = b'{"param_importances": [[]]}' if asked[2] else detail.after(int(after))
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


class Viewer:
    """Makes views of one study.

    Args:
        config: Of the study.
        artifacts: Its files.
    """

    def __init__(self, config: StudyConfig, artifacts: FolderArtifacts) -> None:
        self._config, self._artifacts = config, artifacts
        self._told: dict[int, tuple[FrozenTrial, str]] = {}  # of finished trials, which change no more

    def view(self, seen: Seen, painted: Annotations | None) -> View:
        """The study as seen.

        Args:
            seen: What its storage has.
            painted: Annotations made for this dashboard, if any.
        """
        moment = Moment.of(seen.trials)
        known = kept(seen.studies["search"].user_attrs)
        current = Moment(**known["moment"]) if known else None
        if painted is not None and current is not None and current.runs > painted.moment.runs:
            painted = None
        if painted is not None:
            current = painted.moment
        shown, notes = self._tell(seen.trials)
        mirror = Mirror([(self._about(purpose, seen.studies[purpose]), shown[purpose]) for purpose in PURPOSES])
        inner = wsgi(mirror, artifact_store=self._artifacts)
        apart = wsgi(Mirror([(study, ()) for study in seen.studies.values()]))
        details = {}
        for purpose in PURPOSES:
            study_id = seen.studies[purpose]._study_id
            detail = _ask(inner, study_id)
            for trial in detail["trials"]:
                if not trial["note"]["version"]:  # else somebody wrote one
                    trial["note"]["body"] = notes[purpose][trial["number"]]
            of_study = _ask(apart, study_id)
            detail |= {key: of_study[key] for key in ("note", "plotly_graph_objects")}
            if purpose == "search":
                self._add(detail, painted, known, moment)
            trials = [json.dumps(trial) for trial in detail.pop("trials")]
            details[study_id] = Detail(json.dumps(detail), trials, bool(detail["union_search_space"]))
        partial = painted is None and not known.get("whole", False)
        return View(inner, details, moment, partial or moment.outdates(current))

    def _tell(
        self, trials: Mapping[Purpose, Sequence[FrozenTrial]]
    ) -> tuple[dict[Purpose, list[FrozenTrial]], dict[Purpose, list[str]]]:
        """By purpose, the trials for people and a note on each."""
        shown: dict[Purpose, list[FrozenTrial]] = {}
        notes: dict[Purpose, list[str]] = {}
        for purpose in PURPOSES:
            both = [self._told_once(trial, purpose) for trial in trials[purpose]]
            shown[purpose], notes[purpose] = [each for each, _ in both], [each for _, each in both]
        for number, budgets in best_within(trials["search"], self._config.budgets).items():
            shown["search"][number] = crowned(shown["search"][number], budgets)
        return shown, notes

    def _told_once(self, trial: FrozenTrial, purpose: Purpose) -> tuple[FrozenTrial, str]:
        made = self._told.get(trial._trial_id)
        if made is None:
            made = told(trial, self._config.budgets), note(trial, purpose, self._config.budgets)
            if trial.state.is_finished():
                self._told[trial._trial_id] = made
        return made

    def _about(self, purpose: Purpose, study: FrozenStudy) -> FrozenStudy:
        """A study with what is told of it, and of what it keeps only what belongs to trials."""
        config, confirm = self._config, self._config.confirm
        attrs = {
            "budgets": ", ".join(each.in_words for each in config.budgets),
            "rules judged": ", ".join(map(str, config.rules.judged)),
            "margin": wording.points(confirm.margin),
            "confidence": wording.share(confirm.confidence),
        }
        kept_of_trials = {key: value for key, value in study.system_attrs.items() if _TRIAL_NOTE.match(key)}
        files = {f"artifacts:{key}": value for key, value in self._artifacts.described().items()}
        names = {_METRIC_NAMES: objective_names(config) if purpose == "search" else ["test accuracy"]}
        search = purpose == "search"
        return FrozenStudy(
            study.study_name,
            None,
            attrs if search else {},
            kept_of_trials | names | (files if search else {}),
            study._study_id,
            directions=study.directions,
        )

    def _add(
        self, detail: dict[str, Any], painted: Annotations | None, known: Mapping[str, Any], moment: Moment
    ) -> None:
        """Add to what is answered of the search: its best trials, its note and pictures."""
        if len(detail["directions"]) == 1:
            best = [each for each in detail["trials"] if any(a["key"] == "best_within" for a in each["user_attrs"])]
            detail["best_trials"] = best or detail["best_trials"]
        written = detail["note"]
        if painted is not None:
            detail["plotly_graph_objects"] = [
                {"id": plot_id(name), "graph_object": plot} for name, plot in painted.plots.items()
            ]
            if not is_edited(written["body"], known):
                written["body"] = painted.note
            return
        order = {plot_id(name): place for place, name in enumerate(known.get("plots", ()))}
        detail["plotly_graph_objects"].sort(key=lambda each: order.get(each["id"], len(order)))
        if not written["body"]:
            written["body"] = f"{opening(self._config)}\n\n{_meanwhile(moment)}"


def _meanwhile(moment: Moment) -> str:
    runs = wording.counted(moment.runs, "run")
    return f"{runs} so far. What they say is being worked out; it appears here, with its pictures, in a minute."


def _ask(app: "WSGIApplication", study_id: int) -> Any:  # noqa: ANN401 (JSON)
    environ: dict[str, Any] = {"PATH_INFO": f"/api/studies/{study_id}", "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO()
    return json.loads(b"".join(app(environ, lambda *_: lambda _: None)))
