import numpy as np
import pytest
from planted_findings import make_plan

from search.check import forecast
from search.errors import ConfigError
from search.splits import Splits

pytestmark = pytest.mark.integration


def test_time_is_foretold_with_augmentation_on_noise_of_the_images_own_type():
    plan = make_plan(training={"augment": {"randaugment": 1, "flip": True}})
    assert 0 < forecast(plan).least_seconds < forecast(plan).most_seconds


def test_augmentation_the_images_do_not_allow_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"training.augment.crop is 8"):
        forecast(make_plan(training={"augment": {"crop": 8}}))


def test_a_balanced_accuracy_resolves_as_much_as_its_smallest_classes_allow(monkeypatch):
    monkeypatch.setattr("search.check._seconds_per_step", lambda *_: 0.1)
    plan = make_plan(training={"score": "balanced_accuracy"})
    equal = forecast(plan).resolvable_margin
    assert equal == pytest.approx(forecast(make_plan()).resolvable_margin)
    plan.data.labels[:] = np.where(np.arange(400) < 20, np.arange(400) % 4, 0)  # three classes of 5 images
    sizes = np.bincount(plan.data.labels[Splits(plan.data, plan.config.data).test])
    ratio = np.sqrt(np.mean(sizes.sum() / 4 / sizes))
    assert forecast(plan).resolvable_margin == pytest.approx(ratio * equal)
