import csv
import io

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.records import TRIAL_COLUMNS, csv_text, trial_rows


def cell(value):
    (row,) = csv.DictReader(io.StringIO(csv_text(["first", "second"], [{"first": value, "second": "x"}])))
    assert row["second"] == "x"
    return row["first"]


@pytest.mark.parametrize("opening", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_a_spreadsheet_would_run_is_made_plain(opening):
    text = f'{opening}HYPERLINK("http://example.org";"see")'
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("value", "written"),
    [(-0.5, "-0.5"), (-3, "-3"), (np.float64(-1e-9), "-1e-09"), (0.1234567, "0.123457"), (None, ""), (np.nan, "")],
)
def test_numbers_stay_numbers(value, written):
    assert cell(value) == written


@pytest.mark.parametrize("text", ["8-16-32", "geometric(1.5)", "params <= 1500", "", "'=1"])
def test_other_texts_stay_as_they_are(text):
    assert cell(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_no_text_opens_a_formula(text):
    written = csv_text(["only"], [{"only": text}]).removeprefix("only\n")
    assert not written.lstrip('"').startswith(("=", "+", "-", "@", "\t", "\r"))


class _Planted:
    """A storage of trials with these values."""

    def __init__(self, *values, **others):
        attrs = {"origin": "band", "budget": "params <= 1500", "runs": [{"accuracy": 0.9, "wall_seconds": 1.0}]}
        attrs |= others
        self._trials = [optuna.trial.create_trial(values=each, user_attrs=attrs) for each in values]

    def trials(self, purpose):
        assert purpose == "search"
        return self._trials


def test_a_trials_value_stays_a_number_below_zero_too():
    rows = csv.DictReader(io.StringIO(csv_text(TRIAL_COLUMNS, trial_rows(_Planted([-0.25], [0.1234567], [0.9, -3])))))
    assert [row["value"] for row in rows] == ["-0.25", "0.123457", "0.9 -3"]


@pytest.mark.parametrize(("noted", "written"), [({"machine": "5f2a90c1"}, "5f2a90c1"), ({}, "")])
def test_a_trial_says_what_it_ran_on_where_that_was_noted(noted, written):
    (row,) = csv.DictReader(io.StringIO(csv_text(TRIAL_COLUMNS, trial_rows(_Planted([0.9], **noted)))))
    assert row["machine"] == written
