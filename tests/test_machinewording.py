from dataclasses import replace

import pytest
from optuna.trial import TrialState, create_trial

from search.config import StudyConfig
from search.machine import Machine, note
from search.machinewording import changes, changes_among
from search.study import create_in_memory

A = Machine("3.12.4", "0.9.0", None, "NVIDIA H200", {"torch": "2.14.0", "numpy": "2.3.1"})
B = replace(A, packages={"torch": "2.15.0", "numpy": "2.3.1"})
C = replace(A, device="NVIDIA A100", packages={"torch": "2.16.0", "numpy": "2.3.1"})
KNOWN = {"a": A, "b": B, "c": C}


@pytest.mark.parametrize(
    ("ran", "said"),
    [
        ("", []),
        ("aaaa", []),
        ("a" * 40 + "b" * 24, ["Trials 40 to 63 ran with torch 2.15.0, those before with 2.14.0."]),
        ("aab", ["Trial 2 ran with torch 2.15.0, those before with 2.14.0."]),
        ("abba", ["Trials 1 to 2 ran with torch 2.15.0, the others with 2.14.0."]),
        ("abaabb", ["Trials 1 and 4 to 5 ran with torch 2.15.0, the others with 2.14.0."]),
        ("ab" * 6, ["6 trials between 1 and 11 ran with torch 2.15.0, the others with 2.14.0."]),
        (
            "aabbcc",
            [
                "Trials 2 to 3 ran with torch 2.15.0, trials 0 to 1 with 2.14.0.",
                "Trials 4 to 5 ran with device NVIDIA A100 and torch 2.16.0, trials 0 to 1 with device NVIDIA H200 "
                "and torch 2.14.0.",
            ],
        ),
        ("..aab", ["Trial 4 ran with torch 2.15.0, trials 2 to 3 with 2.14.0."]),
        ("..aa", []),
        ("aax", []),
    ],
)
def test_what_changed_is_said_in_a_sentence(ran, said):
    digests = {number: None if each == "." else each for number, each in enumerate(ran)}
    assert list(changes_among(digests, KNOWN)) == said


def test_the_order_in_which_jobs_come_does_not_matter():
    digests = dict(enumerate("aabb"))
    assert [*changes_among(dict(reversed(digests.items())), KNOWN)] == [*changes_among(digests, KNOWN)]


def test_what_no_study_writes_is_passed_over():
    ran = {0: "a", 1: ["b"], 2: {"c": 1}, 3: 5, 4: "b"}
    assert list(changes_among(ran, KNOWN)) == ["Trial 4 ran with torch 2.15.0, trial 0 with 2.14.0."]
    assert list(changes_among({0: "a", 1: "z"}, {"a": A, "z": A})) == []


def add(study, digest, state=TrialState.COMPLETE):
    attrs = {} if digest is None else {"machine": digest}
    study.add_trial(create_trial(state=state, value=0.9 if state is TrialState.COMPLETE else None, user_attrs=attrs))


def test_each_purpose_is_told_of_by_itself():
    storage = create_in_memory(StudyConfig(), ["maximize"], None)
    for study in storage.studies:
        add(study, None)
    assert changes(storage) == []
    a, b = note(storage, A), note(storage, B)
    for study in storage.studies[:2]:
        add(study, a)
        add(study, b)
    add(storage.probe, b)
    add(storage.probe, a, TrialState.RUNNING)
    assert changes(storage) == [
        "Trial 2 ran with torch 2.15.0, trial 1 with 2.14.0.",
        "Confirmation job 2 ran with torch 2.15.0, confirmation job 1 with 2.14.0.",
    ]
