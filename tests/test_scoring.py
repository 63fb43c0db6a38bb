import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.scoring import accuracy, blind_score, effective_images, parts_of

LABELS = np.repeat([0, 1, 2], [80, 15, 5])


def test_always_the_commonest_class_is_accurate_and_balanced_by_chance():
    constant = LABELS == 0
    assert accuracy(constant, parts_of(LABELS, "accuracy")) == 0.8
    assert accuracy(constant, parts_of(LABELS, "balanced_accuracy")) == pytest.approx(1 / 3)


def test_a_balanced_accuracy_is_the_mean_of_the_classes_own():
    correct = np.concatenate([np.arange(80) < 60, np.arange(15) < 6, np.arange(5) < 1])
    assert accuracy(correct, parts_of(LABELS, "balanced_accuracy")) == pytest.approx((0.75 + 0.4 + 0.2) / 3)


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_classes_of_equal_size_make_both_the_same(answers):
    correct, labels = np.array(answers), np.tile([0, 1, 4], 4)
    balanced = accuracy(correct, parts_of(labels, "balanced_accuracy"))
    assert balanced == pytest.approx(accuracy(correct, parts_of(labels, "accuracy")))


def test_unequal_classes_are_worth_fewer_images():
    assert effective_images([100]) == pytest.approx(100)
    assert effective_images([25, 25, 25, 25]) == pytest.approx(100)
    assert effective_images([80, 15, 5]) == pytest.approx(9 / (1 / 80 + 1 / 15 + 1 / 5))


def test_the_blind_score_is_that_of_the_commonest_class():
    labels = np.repeat([0, 1, 2], [10, 70, 20])
    assert blind_score(labels, "accuracy") == pytest.approx(0.7)
    assert blind_score(labels, "balanced_accuracy") == pytest.approx(1 / 3)
