from dataclasses import replace

import numpy as np
import pytest

from search.data import ANY, TEST, VALIDATION, ImageData
from search.dataconfig import DataConfig
from search.datawording import classes_text, images_text, splits_text


def data_of(counts, names=()):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageData(np.zeros((len(labels), 1, 4, 5), np.uint8), labels, len(counts), "shapes", class_names=names)


EVEN = data_of([20, 20, 20])
OWN = replace(EVEN, own_split=np.tile(np.array([ANY] * 12 + [VALIDATION] * 3 + [TEST] * 5), 3))


def test_images_are_named_counted_and_measured():
    assert images_text(data_of([600, 600])) == "shapes: 1,200 images 4x5x1"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (EVEN, "3 of 20 images each: 0, 1, 2"),
        (data_of([1500, 20], ("cat", "dog")), "2 of 20 to 1,500 images: 0 cat (1,500), 1 dog (20)"),
        (data_of([2] * 100), "100 of 2 images each: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 88 more"),
    ],
)
def test_classes_are_named_and_counted(data, said):
    assert classes_text(data) == said


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        (EVEN, {}, "30 training, 12 validation (redrawn for every seed) and 18 test images (drawn once)"),
        (
            EVEN,
            {"redraw_validation": False},
            "30 training, 12 validation (drawn once) and 18 test images (drawn once)",
        ),
        (OWN, {}, "36 training, 9 validation (the data's own) and 15 test images (the data's own)"),
        (
            replace(EVEN, groups=np.arange(60) // 2),
            {},
            "30 training, 12 validation (drawn once) and 18 test images (drawn once); 30 groups, each in one of them",
        ),
    ],
)
def test_splits_are_counted_and_said_to_be_drawn_or_not(data, settings, said):
    assert splits_text(data, DataConfig(**settings), 1) == said
    brief = said.replace(" training, ", " training (a run trains on 12.5 % of them), ")
    assert splits_text(data, DataConfig(**settings), 0.125) == brief
