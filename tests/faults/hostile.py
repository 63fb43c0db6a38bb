"""Candidates that hurt: one ends every worker, one hangs, one gives NaN, one infinity; the others are carried out."""

import sys
from pathlib import Path

from faults.campaign import Outcome
from faults.invariants import violations
from faults.studies import Ground, write_trained
from faults.supervisors import Fleet
from faults.watch import Trials, Watch
from optuna.trial import TrialState

from search import configfile
from search.plan import make_plan
from search.study import is_given_up

_TRIALS = 8
_SOURCE = """
import os
import signal
import time

import torch
from torch import nn

HARMS = {harms}


class Hostile(nn.Module):
    def __init__(self, filters, in_channels, classes):
        super().__init__()
        self.harm = HARMS.get("-".join(map(str, filters)))
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, filters[0], 3, padding=1), nn.ReLU(), nn.Conv2d(filters[0], filters[1], 3)
        )
        self.head = nn.Linear(filters[1], classes)

    def forward(self, images):
        scores = self.head(self.body(images).mean((2, 3)))
        if images.is_meta or self.harm is None or not torch.is_grad_enabled():
            return scores
        if self.harm == "ends its worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.harm == "hangs":
            time.sleep(3600)
        return scores * float(self.harm)


def hostile(filters, in_channels, classes):
    return Hostile(filters, in_channels, classes)
"""
HARMS = ("ends its worker", "hangs", "nan", "inf")


def run(at: Ground) -> Outcome:
    """A study of eight candidates, four of which hurt."""
    at.imports.mkdir()
    module = at.imports / f"hostile_{at.folder.name}.py"
    module.write_text(_SOURCE.format(harms={}))
    write_trained(at, _TRIALS, factory=f"{module.stem}:hostile", minutes=0.12)
    harms = dict(zip(_schedules(at.config, at.imports), HARMS, strict=True))
    module.write_text(_SOURCE.format(harms=harms))
    outcome, watch = Outcome("hostile candidates", at.kind), Watch(at)
    with Fleet(at, ["run"], 2, watch) as fleet:
        fleet.see_out(400)
        outcome.wrong += fleet.wrong
    found = watch.look()
    put_aside = {t.user_attrs["proposal"] for t in found["search"] if is_given_up(t)}
    outcome.wrong += violations(found, watch.acknowledged, _TRIALS, len(put_aside))
    outcome.wrong += _unlike_their_harm(found, harms)
    outcome.injected.update(f"a candidate: {harm}" for harm in harms.values())
    outcome.ends = len(watch.acknowledged.ends)
    return outcome


def _schedules(config: Path, imports: Path) -> list[str]:
    """Four rules' schedules that no verdict is about."""
    sys.path.insert(0, str(imports))
    try:
        plan = make_plan(configfile.read(config))
    finally:
        sys.path.remove(str(imports))
    judged = {fitted.schedule for fitted in plan.judged}
    others = dict.fromkeys(str(each.schedule) for each in plan.anchors if each.schedule not in judged)
    return list(others)[: len(HARMS)]


def _unlike_their_harm(found: Trials, harms: dict[str, str]) -> list[str]:
    """Trials that did not end as what their candidate does would have it."""
    wrong = []
    for trial in found["search"]:
        harm = harms.get(trial.user_attrs.get("schedule"))
        told = trial.user_attrs.get("reason"), trial.user_attrs.get("detail", "")
        expected = {
            "ends its worker": ("crash", "SIGKILL"),
            "hangs": ("crash", "max_job_minutes"),
            "nan": ("diverged", ""),
            "inf": ("diverged", ""),
        }.get(harm)
        if expected is None:
            as_expected = trial.state is TrialState.COMPLETE
        else:
            as_expected = told[0] == expected[0] and expected[1] in told[1]
        if not as_expected:
            wrong.append(f"trial {trial.number}, which {harm}, is {trial.state.name} with {told}")
    return wrong
