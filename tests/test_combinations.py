import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.combinations import MOST_FEATURES, SIDE, _place, generate, primitives

rng = np.random.default_rng


@given(st.integers(1, MOST_FEATURES), st.integers(1, 150), st.integers(0, 99))
def test_the_seed_alone_settles_balanced_classes(features, images, seed):
    np.random.seed(1)  # noqa: NPY002 # the legacy seed is what must not matter
    pixels, labels = generate(features, images, rng(seed))
    np.random.seed(2)  # noqa: NPY002
    again, _ = generate(features, images, rng(seed))
    assert np.array_equal(pixels, again)
    assert pixels.shape == (images, 1, SIDE, SIDE)
    counts = np.bincount(labels, minlength=2**features - 1)
    assert len(counts) == 2**features - 1
    assert counts.max() - counts.min() <= 1


def test_another_seed_draws_other_images():
    assert not np.array_equal(generate(3, 7, rng(0))[0], generate(3, 7, rng(1))[0])


def test_primitives_are_orthogonal_and_level():
    flat = primitives().reshape(MOST_FEATURES, 9)
    assert flat @ flat.T == pytest.approx(np.eye(MOST_FEATURES))
    assert flat.sum(axis=1) == pytest.approx(0)


@given(st.permutations(range(MOST_FEATURES)), st.integers(1, MOST_FEATURES), st.integers(0, 99))
def test_what_belongs_together_fits_the_second_stage_and_the_rest_stands_apart(order, size, seed):
    together, alone = np.sort(order[:size]), np.sort(order[size:])
    placed = dict(_place(together, alone, rng(seed)))
    assert sorted(placed) == list(range(MOST_FEATURES))
    corners = np.array([placed[feature] for feature in range(MOST_FEATURES)])
    assert corners.min() >= 0
    assert corners.max() + 3 <= SIDE
    distances = np.abs(corners[:, None] - corners).max(axis=2)
    block = distances[np.ix_(together, together)]
    assert block.max() <= 4  # pooled by 2, within three pixels
    for feature in alone:
        assert np.delete(distances[feature], feature).min() >= 4  # a free pixel between 3x3 patterns


def test_a_block_lands_on_every_place_alike():
    draws = rng(0)
    tops = [_place(np.array([0, 1]), np.array([], np.int64), draws)[0][1] for _ in range(4000)]
    rows, columns = (np.bincount(axis) for axis in zip(*tops, strict=True))
    assert len(rows) == 10
    assert len(columns) == 8  # feature 2 stands two pixels to the right
    for counts in (rows, columns):
        expected = 4000 / len(counts)
        assert np.abs(counts - expected).max() < 5 * expected**0.5


def shown(pixels):
    """Of each image, the strongest response to each primitive; shape `(images, MOST_FEATURES)`."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels[:, 0].astype(float), (3, 3), axis=(1, 2))
    return np.einsum("nijab,fab->nijf", windows, primitives()).max(axis=(1, 2))


def test_features_of_a_class_are_always_shown_and_others_only_beside_several():
    features = 4
    pixels, labels = generate(features, 3000, rng(0))
    member = (labels[:, None] + 1) >> np.arange(features) & 1 == 1
    seen = shown(pixels)[:, :features] > 45
    single = member.sum(axis=1, keepdims=True) == 1
    assert seen[single & member].mean() > 0.98
    assert seen[~single & member].mean() > 0.75  # overlaps hide some
    assert seen[single & ~member].mean() < 0.1
    assert 0.45 < seen[~single & ~member].mean() < 0.65


def test_what_is_shown_alone_does_not_tell_the_class():
    # {1, 2} beside a lone 3 shows what {1, 2, 3} shows
    pixels, labels = generate(3, 7000, rng(0))
    everything = (shown(pixels)[:, :3] > 45).all(axis=1)
    assert {0b011 - 1, 0b101 - 1, 0b110 - 1, 0b111 - 1} <= set(np.flatnonzero(np.bincount(labels[everything]) > 200))
