"""What is read off confirmation runs beside the verdict."""

from dataclasses import replace

import numpy as np
import pytest
from planted_findings import PlantedChallenger, make_finding

from search.findings import Findings, collapsed_runs
from search.records import verdict_values


@pytest.mark.parametrize(
    ("runs", "collapsed"),
    [
        ([], 0),
        ([0.96, 0.95, 0.94], 0),
        ([0.96, 0.97, 0.95, 0.88], 0),  # 7.5 points below the median
        ([0.96, 0.97, 0.95, 0.84], 1),
        ([0.96, 0.97, 0.95, 0.1, 0.0], 2),
        ([0.07, 0.06, 0.0], 1),  # diverged, though no run can lie 10 points below another
        ([0.0, 0.0], 2),
        ([0.5, 0.96, 0.97, 0.98, 0.995], 1),
    ],
)
def test_collapsed_runs_lie_ten_points_below_the_median_or_diverged(runs, collapsed):
    assert collapsed_runs(np.array(runs)) == collapsed


def test_the_verdict_file_counts_collapsed_runs(plan):
    finding = make_finding(plan, 0, 16, [PlantedChallenger("8-8-8", "uniform", 0.02)])
    values = verdict_values(Findings(plan, (replace(finding, rule=replace(finding.rule, collapsed=3)),), (), None))
    (verdict,) = values["verdicts"]
    assert verdict["rule_accuracy"]["collapsed_runs"] == 3
    assert verdict["best_accuracy"]["collapsed_runs"] == 0
    assert verdict["challengers"][0]["accuracy"]["collapsed_runs"] == 0
