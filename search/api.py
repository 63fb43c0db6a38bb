"""Searches and studies from Python: the same as the command's verbs, as values to look at in a notebook.

A thin face: what a study does is in `run`, what it says in `findings`, what it looks like in `pictures`.
"""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd
from optuna.trial import TrialState
from plotly import graph_objects as go

from search import folder
from search.config import StudyConfig
from search.configfile import override, parse, read
from search.device import count_workers, device_memory, device_name
from search.exact import exact_findings
from search.figures import TrialPoint
from search.findings import Findings, conclude
from search.laywording import how_sure, plain_answer, use_sentence
from search.livedisplay import live
from search.opening import plan_of
from search.pages import fill
from search.pictures import pictures
from search.plan import StudyPlan, make_plan
from search.records import RUN_COLUMNS, TRIAL_COLUMNS, csv_text, run_rows, trial_rows, verdict_values
from search.run import check_same, run_study
from search.study import Storage
from search.trust import enter, refuse_code
from search.wellformed import load_kept


@dataclass(frozen=True)
class Search:
    """A search about to be made.

    Attributes:
        config: The configuration.
        folder: Where its study goes.
    """

    config: StudyConfig
    folder: Path

    @classmethod
    def from_config(
        cls, config: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = (), out: str | Path | None = None
    ) -> Self:
        """A search as configured.

        Args:
            config: A configuration file, or its content.
            overrides: As the command's `--set`: `["search.trials=20"]`.
            out: Study folder; `studies/NAME` unless given.

        Raises:
            ConfigError: The configuration cannot be used.
        """
        if isinstance(config, Mapping):
            settings = override(parse(dict(config), "the configuration given"), overrides, device_memory)
        else:
            settings = read(Path(config), overrides, device_memory)
        return cls(settings, Path(out) if out else folder.STUDIES / settings.name)

    def run(self, *, workers: int | None = None, resume: bool = False, quiet: bool = False) -> "Study":
        """Search, confirm and judge; the main job.

        In a script, call it under `if __name__ == "__main__":`, since processes that read images import it again.

        Args:
            workers: Processes; as configured unless given.
            resume: Continue the study in the folder if there is one.
            quiet: Show no progress on standard error.

        Raises:
            ConfigError: A study exists and `resume` is off, or it was made by another configuration.
            DataError: The data cannot be read.
            StorageError: The folder cannot be used.
            NoTrialError: No trial could be completed.
            InterruptedStudyError: Ctrl-C or a signal; everything finished is kept.
        """
        folder.check_startable(self.folder, resume)
        plan = make_plan(self.config)
        count = workers or count_workers(self.config.compute)
        device = device_name(self.config.compute.device)
        with live(self.config, quiet=quiet) as show:
            run_study(plan, self.folder, workers=count, device=device, resume=resume, command=sys.argv, show=show)
        return load_study(self.folder, allow_code=True)


@dataclass(frozen=True)
class Study:
    """A study: what it did, so far or in the end, and what it says. Reads; changes nothing.

    What it says is worked out when first asked for, and stands: of a study that still runs, load it again.

    Attributes:
        folder: Its folder.
        config: What it was made by.
        allow_code: Whether the code it names may be imported.
    """

    folder: Path
    config: StudyConfig
    allow_code: bool = False

    @cached_property
    def _storage(self) -> Storage:
        return load_kept(self.folder, self.config)

    @cached_property
    def _plan(self) -> StudyPlan:
        if not self.allow_code:
            refuse_code(self.config, self.folder / "config.yaml")
        plan = plan_of(self.config, allow_code=self.allow_code)
        check_same(plan, self._storage, self.folder)
        return plan

    @cached_property
    def _findings(self) -> Findings:
        return exact_findings(self._plan) if self._plan.exhaustive else conclude(self._plan, self._storage)

    def trials(self) -> pd.DataFrame:
        """A row for each trial that has ended, columns as in trials.csv."""
        return _frame(csv_text(TRIAL_COLUMNS, trial_rows(self._storage)))

    def runs(self) -> pd.DataFrame:
        """A row for each training, columns as in runs.csv."""
        return _frame(csv_text(RUN_COLUMNS, run_rows(self._storage)))

    def verdicts(self) -> pd.DataFrame:
        """A row for each verdict, columns as the keys in verdict.json; accuracies and regrets in columns of their own.

        Empty before the search has ended.
        """
        found = verdict_values(self._findings)["verdicts"]
        return pd.json_normalize([{key: each[key] for key in each if key != "challengers"} for each in found], sep="_")

    def figures(self) -> dict[str, go.Figure]:
        """Every figure of the report by its name, to show, restyle or save."""
        trials = [TrialPoint.of(trial) for trial in self._storage.trials("search", TrialState.COMPLETE)]
        return {picture.name: picture.plot() for picture in pictures(self._findings, trials)}

    @property
    def answer(self) -> str:
        """What was found, and how sure that is, in plain words."""
        return f"{plain_answer(self._findings)} {how_sure(self._findings)}"

    def _repr_html_(self) -> str:
        """The answer and what to use, for a notebook."""
        confirm = self.config.confirm
        uses = [use_sentence(finding, confirm) for finding in self._findings.findings]
        return fill("study.html", {"question": self.config.question, "answer": self.answer, "uses": uses})


def load_study(folder_or_name: str | Path, *, allow_code: bool = False) -> Study:
    """The study in a folder, or of a name below `studies/`.

    Args:
        folder_or_name: Which.
        allow_code: Import the code, and fetch the data, that its configuration names, where what is asked of it needs
            them: for studies of your own. Its trials and runs need neither.

    Raises:
        StorageError: Neither is a study folder.
        ConfigError: Its configuration cannot be read.
    """
    found = enter(str(folder_or_name))
    return Study(found, read(found / "config.yaml"), allow_code)


def _frame(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))
