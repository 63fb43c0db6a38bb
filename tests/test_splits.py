import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data import ANY, TEST, VALIDATION, ImageData
from search.dataconfig import DataConfig
from search.errors import DataError
from search.sources import load
from search.splits import Splits

CONFIG = DataConfig()


def labelled(labels, **more):
    """Images that are all black, with these labels."""
    labels = np.asarray(labels, np.int64)
    return ImageData(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, int(labels.max()) + 1, "toy", **more)


def grouped(groups=40, images=5, classes=2, **more):
    """As many images of every group, all of one class; images lie in random order."""
    numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(groups), images))
    return labelled(numbers % classes, groups=numbers, **more)


@pytest.fixture(scope="module")
def digits():
    return load(CONFIG)


def test_splits_of_the_digits_have_the_sizes_asked_for(digits):
    splits = Splits(digits, CONFIG)
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
    splits = Splits(labelled(labels), config)
    drawn = splits.train_validation(seed)
    together = np.concatenate([splits.test, drawn.validation, drawn.training])
    assert sorted(together) == list(range(len(labels)))
    for indices, fraction in ((splits.test, test), (drawn.validation, validation)):
        assert len(indices) == round(sum(count * fraction for count in counts))
        assert (np.abs(np.bincount(labels[indices], minlength=len(counts)) - np.array(counts) * fraction) < 1).all()


def test_only_training_and_validation_are_redrawn_by_seed(digits):
    splits = Splits(digits, CONFIG)
    assert np.array_equal(splits.test, Splits(digits, CONFIG).test)
    first, again, other = (splits.train_validation(seed) for seed in (1, 1, 2))
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)
    assert len(first.validation) == len(other.validation)


def test_validation_stays_when_not_redrawn(digits):
    splits = Splits(digits, DataConfig(redraw_validation=False))
    assert np.array_equal(splits.train_validation(1).validation, splits.train_validation(2).validation)


def test_split_seed_draws_another_test_split(digits):
    other = DataConfig(split_seed=1)
    assert not np.array_equal(Splits(digits, CONFIG).test, Splits(digits, other).test)


def test_global_seed_does_not_matter(digits):
    np.random.seed(1)  # noqa: NPY002 # the legacy seed is what must not matter
    first = Splits(digits, CONFIG).train_validation(3)
    np.random.seed(2)  # noqa: NPY002
    second = Splits(digits, CONFIG).train_validation(3)
    assert np.array_equal(first.training, second.training)


def test_a_class_too_small_for_every_split_is_refused():
    labels = np.array([0] * 20 + [1] * 2)
    with pytest.raises(DataError, match=r"class 1 has 2 images, which leaves none for the \w+ split; .* add images"):
        Splits(labelled(labels), CONFIG)


def test_a_test_split_of_the_data_stays_theirs():
    own = np.repeat([ANY, TEST], [60, 20])
    data = labelled(np.arange(80) % 4, own_split=own)
    splits = Splits(data, DataConfig(validation_fraction=0.25, split_seed=3))
    assert splits.own_test
    assert np.array_equal(splits.test, np.flatnonzero(own == TEST))
    for seed in (0, 1):
        drawn = splits.train_validation(seed)
        assert len(drawn.validation) == 20  # a quarter of all images
        assert sorted([*splits.test, *drawn.validation, *drawn.training]) == list(range(80))
        assert np.bincount(data.labels[drawn.validation]).tolist() == [5, 5, 5, 5]
    assert not np.array_equal(splits.train_validation(0).validation, splits.train_validation(1).validation)


@pytest.mark.parametrize("redraw", [True, False])
def test_a_validation_split_of_the_data_stays_theirs(redraw):
    own = np.repeat([ANY, VALIDATION, TEST], [60, 20, 20])
    splits = Splits(labelled(np.arange(100) % 4, own_split=own), DataConfig(redraw_validation=redraw))
    for seed in (5, 6):
        drawn = splits.train_validation(seed)
        assert np.array_equal(drawn.validation, np.flatnonzero(own == VALIDATION))
        assert np.array_equal(drawn.training, np.flatnonzero(own == ANY))


def test_a_class_that_the_test_split_of_the_data_lacks_is_named_as_such():
    labels = [*np.arange(60) % 3, *np.arange(20) % 2]
    data = labelled(labels, own_split=np.repeat([ANY, TEST], [60, 20]), class_names=("cat", "dog", "frog"))
    with pytest.raises(DataError, match=r"class 2 \(frog\) has no image in the test split that the data came with"):
        Splits(data, CONFIG)


def test_a_group_stays_in_one_split():
    data = grouped()
    splits = Splits(data, CONFIG)
    drawn = splits.train_validation(0)
    parts = [splits.test, drawn.validation, drawn.training]
    assert sorted(np.concatenate(parts)) == list(range(200))
    numbers = [set(data.groups[part]) for part in parts]
    assert sum(map(len, numbers)) == 40
    assert [len(part) for part in parts] == [60, 40, 100]
    assert all(len(set(data.labels[part])) == 2 for part in parts)
    again = splits.train_validation(1)
    assert np.array_equal(again.validation, drawn.validation), "sizes of redrawn groups would differ from seed to seed"
    assert not np.array_equal(Splits(data, DataConfig(split_seed=1)).test, splits.test)


@pytest.mark.parametrize("asked", [0.01, 0.04, 0.5, 0.7])
def test_groups_meet_small_and_large_fractions_to_a_twentieth(asked):
    test = Splits(grouped(), DataConfig(test_fraction=asked, validation_fraction=0.2)).test
    assert abs(len(test) / 200 - asked) <= 0.05


def test_groups_that_the_test_split_of_the_data_divides_are_refused():
    own = np.repeat([ANY, TEST], [150, 50])
    with pytest.raises(DataError, match=r"\d+ groups have images both in the data's own test split and outside it"):
        Splits(grouped(own_split=own), CONFIG)


def test_too_few_groups_for_every_split_are_refused():
    with pytest.raises(DataError, match=r"class \d+ has \d+ images, which leaves none for the \w+ split"):
        Splits(grouped(groups=4), CONFIG)
    with pytest.raises(DataError, match="are of one group"):
        Splits(labelled([0, 1] * 10, groups=np.zeros(20, np.int64)), CONFIG)


def test_a_rare_class_has_an_image_in_every_split():
    data = labelled([0] * 200 + [1] * 3)
    splits = Splits(data, DataConfig(test_fraction=0.1, validation_fraction=0.1))
    for seed in range(5):
        drawn = splits.train_validation(seed)
        for indices in (splits.test, drawn.validation, drawn.training):
            assert (data.labels[indices] == 1).sum() == 1


def test_the_refusal_names_the_class():
    data = labelled([0] * 20 + [1] * 2, class_names=("cat", "dog"))
    with pytest.raises(DataError, match=r"class 1 \(dog\) has 2 images"):
        Splits(data, CONFIG)


@given(share=st.floats(0.01, 1), seed=st.integers(0, 2**40))
def test_a_share_of_the_training_split_has_every_class(share, seed):
    data = labelled(np.repeat([0, 1, 2], [200, 50, 10]))
    splits = Splits(data, CONFIG)
    whole, part = splits.train_validation(seed), splits.train_validation(seed, share)
    assert np.array_equal(part.validation, whole.validation)
    assert set(part.training) <= set(whole.training)
    counts, asked = np.bincount(data.labels[part.training]), np.bincount(data.labels[whole.training]) * share
    assert (np.abs(counts - np.maximum(asked, 1)) < 1).all()


def test_every_seed_trains_on_another_share_even_where_the_split_is_fixed(digits):
    splits = Splits(digits, DataConfig(redraw_validation=False))
    first, again, other = (splits.train_validation(seed, 0.1).training for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(first) == len(other) == 90
