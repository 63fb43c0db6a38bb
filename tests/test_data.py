import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import DataConfig
from search.data import ImageData, Splits, load
from search.errors import DataError

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


def test_splits_of_the_digits_have_the_sizes_asked_for(digits):
    splits = Splits(digits.labels, CONFIG)
    drawn = splits.train_validation(0)
    assert (len(splits.test), len(drawn.validation), len(drawn.training)) == (539, 359, 899)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(8, 40), min_size=1, max_size=6),
    test=st.floats(0.15, 0.4),
    validation=st.floats(0.15, 0.4),
    split_seed=st.integers(0, 2**40),
    seed=st.integers(0, 2**62),
)
def test_splits_share_out_all_images_by_class(counts, test, validation, split_seed, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    config = DataConfig(test_fraction=test, validation_fraction=validation, split_seed=split_seed)
    splits = Splits(labels, config)
    drawn = splits.train_validation(seed)
    together = np.concatenate([splits.test, drawn.validation, drawn.training])
    assert sorted(together) == list(range(len(labels)))
    for indices, fraction in ((splits.test, test), (drawn.validation, validation)):
        assert len(indices) == round(sum(count * fraction for count in counts))
        assert (np.abs(np.bincount(labels[indices], minlength=len(counts)) - np.array(counts) * fraction) < 1).all()


def test_only_training_and_validation_are_redrawn_by_seed(digits):
    splits = Splits(digits.labels, CONFIG)
    assert np.array_equal(splits.test, Splits(digits.labels, CONFIG).test)
    first, again, other = (splits.train_validation(seed) for seed in (1, 1, 2))
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)
    assert len(first.validation) == len(other.validation)


def test_validation_stays_when_not_redrawn(digits):
    splits = Splits(digits.labels, DataConfig(redraw_validation=False))
    assert np.array_equal(splits.train_validation(1).validation, splits.train_validation(2).validation)


def test_split_seed_draws_another_test_split(digits):
    other = DataConfig(split_seed=1)
    assert not np.array_equal(Splits(digits.labels, CONFIG).test, Splits(digits.labels, other).test)


def test_global_seed_does_not_matter(digits):
    np.random.seed(1)  # noqa: NPY002 # the legacy seed is what must not matter
    first = Splits(digits.labels, CONFIG).train_validation(3)
    np.random.seed(2)  # noqa: NPY002
    second = Splits(digits.labels, CONFIG).train_validation(3)
    assert np.array_equal(first.training, second.training)


def test_a_class_too_small_for_every_split_is_refused():
    labels = np.array([0] * 20 + [1] * 2)
    with pytest.raises(DataError, match=r"class 1 has 2 images, which leaves none for the \w+ split; .* add images"):
        Splits(labels, CONFIG)


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
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4


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
