from dataclasses import replace

import numpy as np
import pytest

from search.data import ImageData
from search.dataconfig import DataConfig
from search.errors import DataError
from search.sources import load
from search.splits import Splits

CONFIG = DataConfig()


def random_data(images=60, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (images, channels, 4, 5)).astype(dtype)
    return ImageData(pixels, np.arange(images) % 3, 3, "random")


@pytest.fixture(scope="module")
def digits():
    return load(CONFIG)


def test_digits_are_complete_and_keep_their_whole_pixels(digits):
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.image_shape == (1, 8, 8)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 16)
    assert sorted(set(digits.labels)) == list(range(10))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalisation_is_that_of_the_training_images_alone(dtype):
    data = random_data(dtype=dtype)
    training = np.arange(0, 60, 2)
    mean, deviation = data.normalisation(training)
    assert mean == pytest.approx(data.images[training].mean(axis=(0, 2, 3)))
    assert deviation == pytest.approx(data.images[training].std(axis=(0, 2, 3)))
    pixels = data.images.copy()
    pixels[1::2] = 7  # images outside the training split
    changed = ImageData(pixels, data.labels, 3, "changed")
    assert np.array_equal(changed.normalisation(training)[0], mean)
    assert not np.array_equal(changed.normalisation(training + 1)[0], mean)


def test_a_constant_channel_is_left_as_it_is():
    data = ImageData(np.full((6, 1, 2, 2), 5, np.uint8), np.arange(6) % 2, 2, "grey")
    assert data.normalisation(np.arange(3))[1] == pytest.approx([1])


def test_fingerprint_tells_data_apart():
    data = random_data()
    assert data.fingerprint == random_data().fingerprint
    pixels = data.images.copy()
    pixels[0, 0, 0, 0] ^= 1
    others = [
        ImageData(pixels, data.labels, 3, "random"),
        ImageData(data.images, data.labels[::-1].copy(), 3, "random"),
        ImageData(data.images.reshape(60, 3, 5, 4), data.labels, 3, "random"),
    ]
    own = np.arange(60, dtype=np.int8) % 3
    groups = np.arange(60) // 2
    others += [replace(data, own_split=own), replace(data, own_split=own[::-1]), replace(data, groups=groups)]
    others += [replace(data, groups=groups // 2)]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 8
    assert replace(data, name="other", class_names=("a", "b", "c"), notes=("one",)).fingerprint == data.fingerprint


def test_fingerprints_stay_what_they_were(digits):
    assert digits.fingerprint.startswith("42ddca0e20f54e1a")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("block", [1, 500])
def test_normalisation_is_the_same_however_many_images_are_worked_on_at_a_time(monkeypatch, dtype, block):
    data, again = random_data(dtype=dtype), random_data(dtype=dtype)
    whole = data.normalisation(np.arange(60))
    monkeypatch.setattr("search.data._BLOCK", block)
    assert np.array_equal(whole, again.normalisation(np.arange(60)))


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int64), r"shape \(4, 2, 2\) .* give \(images, channels"),
        (np.zeros((4, 1, 2, 2)), np.zeros(4, np.int64), "float64; give .* uint8 or float32"),
        (np.zeros((4, 1, 2, 2), np.uint8), np.zeros(3, np.int64), "4 images, .* give one label each"),
        (np.zeros((4, 1, 2, 2), np.uint8), np.full(4, 2), "labels from 2 to 2 for 2 classes; number the classes"),
    ],
)
def test_data_that_do_not_fit_together_are_refused(images, labels, says):
    with pytest.raises(DataError, match=says):
        ImageData(images, labels, 2, "bad")


def test_combinations_are_the_same_data_every_time():
    config = DataConfig(source="combinations", features=3, images=140)
    data = load(config)
    assert data.images.shape == (140, 1, 12, 12)
    assert data.classes == 7
    assert np.bincount(data.labels).tolist() == [20] * 7
    assert load(config).fingerprint == data.fingerprint
    others = [DataConfig(source="combinations", features=3, images=141), DataConfig(source="combinations", images=140)]
    assert all(load(other).fingerprint != data.fingerprint for other in others)


def test_too_few_images_for_the_combinations_are_refused():
    config = DataConfig(source="combinations", features=6, images=126)
    with pytest.raises(DataError, match=r"class \d+ has 2 images, which leaves none"):
        Splits(load(config), config)


def test_merged_classes_keep_pixels_and_splits(digits):
    merged = load(DataConfig(classes=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))))
    assert merged.classes == 2
    assert np.array_equal(merged.images, digits.images)
    assert np.array_equal(merged.labels, digits.labels // 5)
    before, after = (Splits(data, CONFIG) for data in (digits, merged))
    assert np.array_equal(before.test, after.test)
    assert np.array_equal(before.train_validation(3).training, after.train_validation(3).training)


def test_classes_not_named_are_dropped_with_their_images(digits):
    kept = load(DataConfig(classes=(7, (1, 4))))
    assert kept.classes == 2
    assert len(kept.labels) == np.isin(digits.labels, [7, 1, 4]).sum()
    assert np.array_equal(kept.images[kept.labels == 0], digits.images[digits.labels == 7])
    assert np.array_equal(kept.images[kept.labels == 1], digits.images[np.isin(digits.labels, [1, 4])])
    splits = Splits(kept, CONFIG)
    shares = np.bincount(kept.strata[splits.test]) / np.maximum(np.bincount(kept.strata), 1)
    assert shares[[1, 4, 7]] == pytest.approx(0.3, abs=0.01)


def test_all_classes_in_their_order_are_the_data_as_they_are(digits):
    named = load(DataConfig(classes=tuple(range(10))))
    assert np.array_equal(named.labels, digits.labels)
    assert np.array_equal(named.images, digits.images)


def test_an_unknown_class_is_refused():
    with pytest.raises(
        DataError, match=r"data.classes names class 10, but digits has 10 classes; name them from 0 to 9"
    ):
        load(DataConfig(classes=(0, 10)))


def test_merging_tells_data_apart(digits):
    pairs = [((0, 1), (2, 3)), ((1, 0), (3, 2)), ((2, 3), (0, 1)), (0, (1, 2, 3))]
    prints = [load(DataConfig(classes=groups)).fingerprint for groups in pairs]
    assert prints[0] == prints[1]
    assert len({*prints, digits.fingerprint}) == 4
