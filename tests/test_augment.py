import numpy as np
import pytest
import torch

from search import augment
from search.augment import Augmentation
from search.data import ImageData, check_augment
from search.errors import ConfigError
from search.trainingconfig import AugmentConfig

EVERYTHING = {"flip": True, "crop": 2, "randaugment": 2, "mixup": 0.4, "cutmix": 1.0}


def augmentation(seeds=(1, 2), classes=4, **options):
    return Augmentation(AugmentConfig(**options), classes, seeds)


def ramps(batch, replicas, side=8):
    """Images that all differ and have no symmetry, b k 1 h w; none has a pixel of 0."""
    pixels = torch.arange(batch * replicas * side * side) % 250 + 1
    return pixels.to(torch.uint8).view(batch, replicas, 1, side, side)


def test_half_of_the_images_are_flipped_each_drawn_for_itself():
    images = ramps(400, 2)
    varied = augmentation(flip=True).vary(images)
    kept = (varied == images).flatten(2).all(2)
    mirrored = (varied == images.flip(-1)).flatten(2).all(2)
    assert torch.equal(kept, ~mirrored)
    assert 0.4 < mirrored.float().mean() < 0.6
    assert not torch.equal(mirrored[:, 0], mirrored[:, 1])


def test_a_crop_shifts_every_image_by_its_own_step_and_zeros_come_in():
    images = ramps(400, 2)
    varied = augmentation(crop=2).vary(images)
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2))
    found = torch.full((400, 2), -1)
    for row in range(5):
        for column in range(5):
            window = framed[..., row : row + 8, column : column + 8]
            found[(varied == window).flatten(2).all(2)] = 5 * row + column
    steps = torch.bincount(found.flatten(), minlength=25)
    assert steps.min() > 10  # all 25, of 800 images; -1 would have been refused
    assert not torch.equal(found[:, 0], found[:, 1])


def test_randaugment_keeps_type_and_shape_and_draws_by_groups():
    images = ramps(64, 1)[:1].expand(64, 1, 1, 8, 8)
    varied = augmentation(seeds=(1,), randaugment=2).vary(images)
    assert (varied.dtype, varied.shape) == (torch.uint8, images.shape)
    groups = [group.flatten(1) for group in varied[:, 0].split(augment._GROUP)]
    assert all((group == group[0]).all() for group in groups)
    assert len({bytes(group[0].numpy().tobytes()) for group in groups}) > 3


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_of_randaugment_takes_grey_and_coloured_images(channels):
    images = torch.randint(0, 256, (512, 1, channels, 4, 5), dtype=torch.uint8)  # 64 groups, 4 operations each
    assert augmentation(seeds=(3,), randaugment=4).vary(images).shape == images.shape


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixing_gives_shares_of_classes_to_match_the_pixels(option):
    labels = torch.arange(8).view(8, 1) % 4
    images = labels.float().view(8, 1, 1, 1, 1).expand(8, 1, 1, 16, 16)  # a pixel says which class it is of
    mixed, shares = augmentation(seeds=(1,), **{option: 1.0}).mix(images, labels)
    assert shares.shape == (8, 1, 4)
    torch.testing.assert_close(shares.sum(-1), torch.ones(8, 1))
    torch.testing.assert_close((shares * torch.arange(4)).sum(-1), mixed.mean((2, 3, 4)))
    assert int(((shares > 0) & (shares < 1)).sum()) > 0


def test_with_mixup_and_cutmix_a_batch_gets_either():
    images = torch.stack([torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)])
    labels = torch.tensor([[0], [1]])
    both = augmentation(seeds=(1,), mixup=1.0, cutmix=1.0)
    cut = [bool(((mixed == 0) | (mixed == 1)).all()) for mixed, _ in (both.mix(images, labels) for _ in range(40))]
    assert 8 < sum(cut) < 32


def test_without_mixing_labels_stay():
    images, labels = torch.zeros(2, 2, 1, 4, 4), torch.zeros(2, 2, dtype=torch.long)
    mixed = augmentation(flip=True).mix(images, labels)
    assert (mixed[0] is images, mixed[1] is labels) == (True, True)


def varied(seeds, images):
    several = augmentation(seeds, **EVERYTHING)
    batches = []
    for _ in range(3):
        changed = several.vary(images)
        batches.append(several.mix(changed.float(), torch.arange(len(images))[:, None].expand(-1, len(seeds)) % 4))
    return batches


def test_a_seed_has_the_same_draws_alone_and_among_others_whatever_the_global_seed():
    images = ramps(32, 1).expand(32, 3, 1, 8, 8)
    torch.manual_seed(1)
    together = varied((5, 6, 7), images)
    torch.manual_seed(2)
    for place, seed in enumerate((5, 6, 7)):
        for (pixels, shares), (own_pixels, own_shares) in zip(together, varied((seed,), images[:, :1]), strict=True):
            assert torch.equal(pixels[:, place], own_pixels[:, 0])
            assert torch.equal(shares[:, place], own_shares[:, 0])
    assert not torch.equal(together[0][0][:, 0], together[0][0][:, 1])


def test_global_generators_are_neither_read_nor_moved():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 # the legacy state is what is kept
    varied((5, 6), ramps(16, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3)])
def test_images_of_a_pixel_or_two_are_no_trouble(shape):
    height, width = shape
    images = torch.randint(0, 256, (8, 2, 1, height, width), dtype=torch.uint8)
    tiny = augmentation(flip=True, crop=min(shape) // 2, randaugment=2, mixup=0.2, cutmix=1.0)
    pixels, shares = tiny.mix(tiny.vary(images).float(), torch.zeros(8, 2, dtype=torch.long))
    assert (pixels.shape, shares.shape) == (images.shape, (8, 2, 4))


def test_float_images_are_flipped_and_cropped_too():
    images = torch.rand(16, 2, 3, 6, 6)
    assert augmentation(flip=True, crop=1).vary(images).dtype == torch.float32


def data(dtype=np.uint8, channels=1, side=8):
    return ImageData(np.zeros((4, channels, side, side), dtype), np.arange(4), 4, "toys")


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (data(), {"crop": 5}, r"augment.crop is 5, but images of toys are 8x8; .*: set it to 4 or less"),
        (data(np.float32), {"randaugment": 2}, r"augment.randaugment is 2, but images of toys are float32 of 1 chan"),
        (
            data(channels=4),
            {"randaugment": 1},
            r"randaugment is 1, but images of toys are uint8 of 4 channels; .*leave",
        ),
    ],
)
def test_what_the_images_do_not_allow_is_refused(images, options, said):
    with pytest.raises(ConfigError, match=said):
        check_augment(AugmentConfig(**options), images)


def test_what_they_allow_is_not():
    check_augment(AugmentConfig(**EVERYTHING | {"crop": 4}), data(channels=3))
    check_augment(AugmentConfig(flip=True, crop=4, mixup=0.2), data(np.float32, channels=2))
    check_augment(AugmentConfig(), data(np.float32, side=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"flip": True, "crop": 1}, "flip, crop (1 pixel)"),
        (
            EVERYTHING,
            "flip, crop (2 pixels), RandAugment (2 operations), mixup (alpha 0.4) or CutMix (alpha 1)",
        ),
    ],
)
def test_what_is_done_is_told_in_words(options, said):
    assert AugmentConfig(**options).in_words == said
