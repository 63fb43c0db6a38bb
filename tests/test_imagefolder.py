"""What is done with a folder of images, good and bad ones."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import ANY, TEST, VALIDATION
from search.dataconfig import DataConfig
from search.errors import DataError
from search.sources import cache as image_cache
from search.sources import imagefile, reading
from search.sources.folder import load_folder
from search.splits import Splits


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """Two classes of four colour images, without splits."""
    for number, name in enumerate(("cat", "dog")):
        for index in range(4):
            write(tmp_path / "pets" / name / f"{index}.png", seed=10 * number + index)
    return tmp_path / "pets"


def picture(seed=0, size=(6, 6), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def write(path, image=None, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed, size, mode = how.pop("seed", 0), how.pop("size", (6, 6)), how.pop("mode", "RGB")
    (image or picture(seed, size, mode)).save(path, **how)


def load(root, **settings):
    return load_folder(DataConfig(source="folder", path=str(root), **settings))


def wide_png(colour):
    """A PNG with 16 bits a channel, which Pillow cannot write in colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes(6 * channels * 2) for _ in range(6))

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 6, 6, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def spoil(root):
    """Add one file of every kind that cannot be used; why each cannot, by path."""
    cat = root / "cat"
    write(cat / "truncated.jpg", size=(64, 64))
    (cat / "truncated.jpg").write_bytes((cat / "truncated.jpg").read_bytes()[:-200])
    write(cat / "cut.png", size=(64, 64))
    (cat / "cut.png").write_bytes((cat / "cut.png").read_bytes()[:2000])
    (cat / "zero.jpg").touch()
    (cat / "text.jpg").write_text("no image at all")
    (cat / "wide.png").write_bytes(wide_png(0))
    for number, kind in ((2, "colour"), (4, "alpha"), (6, "both")):
        (cat / f"wide_{kind}.png").write_bytes(wide_png(number))
    (cat / "wide.ppm").write_bytes(b"P6 6 6 65535\n" + bytes(6 * 6 * 6))
    write(cat / "float.tif", picture().convert("F"))
    write(cat / "press.jpg", mode="CMYK")
    write(cat / "lab.tif", picture().convert("LAB"))
    (cat / "postscript.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n")
    (cat / "nowhere.png").symlink_to(root / "missing.png")
    write(root / "stray.png")
    return {
        "cat/truncated.jpg": "truncated or damaged (image file is truncated",
        "cat/cut.png": "truncated or damaged",
        "cat/zero.jpg": "empty (0 bytes)",
        "cat/text.jpg": "no image, in spite of its name",
        "cat/wide.png": "16 bits or more a channel",
        "cat/wide_colour.png": "16 bits or more a channel",
        "cat/wide_alpha.png": "16 bits or more a channel",
        "cat/wide_both.png": "16 bits or more a channel",
        "cat/wide.ppm": "16 bits or more a channel",
        "cat/float.tif": "16 bits or more a channel (mode F)",
        "cat/press.jpg": "CMYK, whose colours depend on a profile; save it as RGB",
        "cat/lab.tif": "colours of mode LAB",
        "cat/postscript.jpg": "no image, in spite of its name",
        "cat/nowhere.png": "cannot be read (No such file or directory)",
        "stray.png": "an image outside the folders of the classes",
    }


def test_a_folder_for_each_class(root):
    data, paths = load(root)
    assert paths == [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(4)]
    assert (data.name, data.classes, data.class_names, data.own_split) == ("pets", 2, ("cat", "dog"), None)
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert data.images.shape == (8, 3, 6, 6)
    assert data.notes == ()
    expected = np.asarray(picture(11)).transpose(2, 0, 1)
    assert np.array_equal(data.images[5], expected)


@pytest.mark.parametrize("validation", ["val", "Valid", "validation"])
def test_split_folders(tmp_path, validation):
    root = tmp_path / "pets"
    for number, split in enumerate(("train", validation, "test")):
        for name in ("cat", "dog"):
            for index in range(3 - number):
                write(root / split / name / "deeper" / f"{index}.png", seed=100 * number + 10 * len(name) + index)
    data, paths = load(root)
    assert data.own_split.tolist() == [ANY] * 6 + [VALIDATION] * 4 + [TEST] * 2
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1]
    assert paths[0] == "train/cat/deeper/0.png"
    assert Splits(data, DataConfig()).test.tolist() == [10, 11]


def test_a_validation_folder_without_a_test_folder_is_the_test_split(tmp_path):
    for split in ("Training", "val"):
        for name in ("cat", "dog"):
            for index in range(4):
                write(tmp_path / "pets" / split / name / f"{index}.png", seed=10 * len(split) + index)
    data, _ = load(tmp_path / "pets")
    assert data.own_split.tolist() == [ANY] * 8 + [TEST] * 8
    assert "no test folder: the validation folder is the test split, and validation is drawn" in data.notes


def test_classes_may_hold_folders_of_one_name(tmp_path):
    for name in ("cat", "dog"):
        for place in ("indoors", "outdoors"):
            write(tmp_path / "pets" / name / place / "0.png", seed=len(name + place))
        write(tmp_path / "pets" / name / "0.png", seed=ord(name[0]))
    assert load(tmp_path / "pets")[0].class_names == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "train"):
        write(tmp_path / "vehicles" / name / "0.png")
    assert load(tmp_path / "vehicles")[0].class_names == ("car", "train")


def test_hidden_and_other_files_are_passed_over(root):
    write(root / "cat" / ".hidden.png")
    write(root / ".thumbs" / "0.png")
    (root / "cat" / "notes.txt").write_text("a cat")
    (root / "list.csv").write_text("")
    data, paths = load(root)
    assert len(paths) == 8
    assert data.notes == ("2 files (list.csv and cat/notes.txt) not named like an image: ignored",)


def test_all_problems_are_named_at_once(root):
    reasons = spoil(root)
    (root / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        load(root)
    said = str(caught.value)
    assert said.startswith(f"{root} has {len(reasons) + 1} things that cannot be used:\n")
    lines = said.splitlines()[1:-1]
    assert len(lines) == len(reasons) + 1
    for path, reason in reasons.items():
        assert any(line.startswith(f"  {path}: {reason}") for line in lines), path
    assert "  empty/: a class without a usable image; add images or remove the folder" in lines
    assert said.splitlines()[-1] == "mend or remove them, or leave them out by data.on_bad: skip"


def test_skipping_leaves_out_and_counts(root):
    good, _ = load(root)
    reasons = spoil(root)
    for _ in range(2):  # decoded, then kept
        data, paths = load(root, on_bad="skip")
        assert len(paths) == 8
        assert data.fingerprint == good.fingerprint
        assert data.notes[0].startswith(f"{len(reasons)} files (such as cat/cut.png: truncated or damaged")
        assert data.notes[0].endswith("that cannot be used: left out")
    with pytest.raises(DataError, match="15 things that cannot be used"):
        load(root)  # what was kept when skipping is no excuse


def test_what_cannot_be_used_has_no_say_in_the_form(tmp_path):
    for name in ("cat", "dog"):
        write(tmp_path / "grey" / name / "0.png", mode="L", size=(5, 7))
    write(tmp_path / "grey" / "cat" / "1.jpg", size=(64, 64))
    broken = tmp_path / "grey" / "cat" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    assert load(tmp_path / "grey", on_bad="skip")[0].images.shape == (2, 1, 5, 7)


def test_classes_that_contradict_each_other_are_errors_even_when_skipping(tmp_path):
    root = tmp_path / "pets"
    for path in ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/zebra/0.png"):
        write(root / path)
    (root / "train" / "fox").mkdir()
    (root / "train" / "owl").mkdir()
    (root / "train" / "owl" / "0.jpg").touch()
    with pytest.raises(DataError) as caught:
        load(root, on_bad="skip")
    assert str(caught.value).splitlines() == [
        f"{root} has 3 things that cannot be used:",
        "  test/zebra/: a class the training images lack; add it there or remove the folder",
        "  train/fox/: a class without a usable image; add images or remove the folder",
        "  train/owl/: a class without a usable image; add images or remove the folder",
    ]


def test_a_long_list_of_problems_is_cut(root):
    for index in range(60):
        (root / "dog" / f"empty{index:02}.png").touch()
    with pytest.raises(DataError) as caught:
        load(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 53
    assert lines[51] == "  and 10 more"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ((), r"has no folder in it; it needs a folder for each class, or train/"),
        (("test/cat", "val/cat"), "has test and val but no train; it needs"),
        (
            ("train/cat", "test/cat", "spare/cat"),
            r"has split folders \(test, train\) beside others \(spare\); move one",
        ),
        (("cat",), "1 class to train on; there must be two or more"),
        (("images/cat", "images/dog"), r"has nothing but images/, which holds 2 folders; name .*/images$"),
        (
            ("Training set/cat", "Training set/dog", "Test set/cat", "Test set/dog"),
            r"has Test set, Training set, which hold the same folders: cat, dog; if these are the classes, call",
        ),
    ],
)
def test_layouts_that_are_refused(tmp_path, made, says):
    (tmp_path / "images").mkdir()
    for folder in made:
        write(tmp_path / "images" / folder / "0.png")
    with pytest.raises(DataError, match=says):
        load(tmp_path / "images")


def test_no_folder_at_all(tmp_path):
    with pytest.raises(DataError, match=r"nowhere cannot be read as a folder \(No such file or directory\); name one"):
        load(tmp_path / "nowhere")


def test_files_and_folders_that_may_not_be_read(root, monkeypatch):
    write(root / "dog" / "secret" / "0.png")
    scandir, open_path = os.scandir, Path.open

    def no_scandir(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def no_open(self, *arguments, **keywords):
        if self.name == "3.png":
            raise PermissionError(13, "Permission denied")
        return open_path(self, *arguments, **keywords)

    monkeypatch.setattr(os, "scandir", no_scandir)
    monkeypatch.setattr(Path, "open", no_open)
    with pytest.raises(DataError) as caught:
        load(root)
    assert [line for line in str(caught.value).splitlines() if "Permission denied" in line] == [
        "  cat/3.png: cannot be read (Permission denied)",
        "  dog/3.png: cannot be read (Permission denied)",
        "  dog/secret/: cannot be read (Permission denied)",
    ]


def test_a_link_that_leads_back_up_ends(root):
    (root / "dog" / "again").symlink_to(root / "dog")
    assert len(load(root)[1]) == 8


def test_images_too_large_to_be_meant_are_refused(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write(root / "cat" / "bomb.png", size=(11, 11))
    write(root / "cat" / "larger.png", size=(40, 40))
    with pytest.raises(DataError) as caught:
        load(root)
    assert str(caught.value).count("more than 100 pixels; save it smaller") == 2


def test_grey_images_have_one_channel_unless_there_is_colour(root):
    for path in root.rglob("*.png"):
        write(path, seed=int(path.stem), mode="L")
    data, _ = load(root)
    assert data.images.shape == (8, 1, 6, 6)
    write(root / "cat" / "0.png")
    data, _ = load(root)
    assert data.images.shape == (8, 3, 6, 6)
    assert (data.images[1] == data.images[1, :1]).all()
    assert data.notes[0] == (
        "7 grey images (such as cat/1.png, cat/2.png and cat/3.png) among colour: given three equal channels"
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_that_are_converted(root, mode):
    write(root / "cat" / "0.png", picture().convert("L").convert(mode))
    data, _ = load(root)
    expected = picture().convert("L").convert(mode).convert("RGB")
    assert np.array_equal(data.images[0], np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("resolution", [None, 4])
def test_what_is_transparent_lies_on_black(root, resolution):
    pixels = np.full((6, 6, 4), 200, np.uint8)
    pixels[..., 3] = 0
    write(root / "cat" / "0.png", Image.fromarray(pixels))
    assert (load(root, resolution=resolution)[0].images[0] == 0).all()


def test_transparency_of_a_palette_lies_on_black(root):
    palette = Image.new("P", (6, 6), 0)
    palette.putpalette([255, 255, 255, 9, 8, 7])
    palette.putpixel((2, 1), 1)
    write(root / "cat" / "0.png", palette, transparency=0)
    first = load(root)[0].images[0]
    assert first[:, 1, 2].tolist() == [9, 8, 7]
    assert first.sum() == 24


@pytest.mark.parametrize("name", ["0.jpg", "0.tif", "0.png", "0.webp"])
def test_the_orientation_a_camera_noted_is_applied(tmp_path, name):
    upright = Image.new("RGB", (8, 4), (255, 255, 255))
    upright.paste((0, 0, 0), (0, 0, 4, 4))  # the left half is black
    exif = upright.getexif()
    exif[0x0112] = 6  # to be turned clockwise: the upper half is
    for folder in ("cat", "dog"):
        write(tmp_path / "turned" / folder / name, upright, exif=exif)
    images = load(tmp_path / "turned")[0].images
    assert images.shape == (2, 3, 8, 4)
    assert images[0, :, :3].max() < 60 < 200 < images[0, :, 5:].min()


def test_images_of_several_sizes_become_square(root):
    write(root / "cat" / "0.png", size=(40, 30))
    assert load(root)[0].images.shape == (8, 3, 64, 64)


def test_a_resolution_resizes_the_shorter_side_and_cuts_the_middle_out(root):
    wide = Image.new("RGB", (24, 8), (0, 0, 0))
    wide.paste((255, 255, 255), (8, 0, 16, 8))  # the middle third is white
    write(root / "cat" / "0.png", wide)
    data, _ = load(root, resolution=4)
    assert data.images.shape == (8, 3, 4, 4)
    assert data.images[0].min() > 200


def test_resizing_is_antialiased_and_so_is_what_a_large_jpeg_is_decoded_at(root):
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[::2] = 255
    write(root / "cat" / "0.png", Image.fromarray(stripes))
    write(root / "cat" / "1.jpg", Image.fromarray(stripes), quality=95)
    images = load(root, resolution=8)[0].images
    assert images[:2].min() > 115
    assert images[:2].max() < 140


def test_names_that_disagree_with_the_content_are_noted(root):
    picture(1).save(root / "cat" / "1.jpg", format="PNG")
    assert (
        load(root)[0].notes[0] == "1 file (cat/1.jpg, a PNG) in another format than the name says: read all the same"
    )


def test_copies_are_noted_where_they_mislead(root):
    write(root / "cat" / "copy.png", seed=0)
    assert (
        load(root)[0].notes[0].startswith("1 image (cat/copy.png) that copy another: the splits may tear them apart")
    )
    write(root / "dog" / "copy.png", seed=0)
    assert load(root)[0].notes[0] == (
        "3 images (cat/0.png, cat/copy.png and dog/copy.png) with copies under another class: one of them is "
        "mislabelled"
    )


def test_copies_across_the_data_s_own_test_split_are_noted(tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            write(tmp_path / split / name / "0.png", seed=number)
            write(tmp_path / split / name / "1.png", seed=number + (5 if split == "test" else 9))
    notes = load(tmp_path)[0].notes
    assert notes == (
        "2 test images (test/cat/0.png and test/dog/0.png) with copies outside the test split: they flatter test "
        "accuracy",
    )


def test_a_second_load_decodes_nothing_until_something_changes(root, monkeypatch, cache):
    data, _ = load(root)
    with monkeypatch.context() as patched:
        patched.setattr("search.sources.folder.standardise", None)
        again, _ = load(root)
        assert again.fingerprint == data.fingerprint
        again.images[0, 0, 0, 0] ^= 1  # this process's alone
        assert load(root)[0].fingerprint == data.fingerprint
    kept = list((cache / "filter-search" / "images").iterdir())
    assert len(kept) == 2
    seen = {data.fingerprint}
    for change in (
        lambda: write(root / "cat" / "0.png", seed=99),
        lambda: write(root / "cat" / "new.png", seed=98),
        lambda: (root / "cat" / "new.png").rename(root / "dog" / "new.png"),
        lambda: (root / "dog" / "1.png").unlink(),
    ):
        change()
        seen.add(load(root)[0].fingerprint)
    assert len(seen) == 5
    assert len(list((cache / "filter-search" / "images").iterdir())) == 2  # what was kept before is given up


def test_a_damaged_cache_is_made_anew(root, cache):
    fingerprint = load(root)[0].fingerprint
    for path in (cache / "filter-search" / "images").iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-1])
        assert load(root)[0].fingerprint == fingerprint
        assert path.read_bytes() == content


@pytest.mark.parametrize("write_file", [lambda path: path.write_text("in the way"), None])
def test_without_a_cache_folder_images_stay_in_memory(root, cache, monkeypatch, write_file):
    if write_file:
        write_file(cache)
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
    data, _ = load(root)
    assert len(data.images) == 8
    assert f"the cache folder {image_cache.folder()} cannot be written" in data.notes[-1]
    assert not write_file or cache.read_text() == "in the way"
    assert write_file or not list(image_cache.folder().iterdir())


def test_other_processes_decode_the_same(root, monkeypatch, tmp_path):
    alone, _ = load(root)
    spoil(root)
    monkeypatch.setattr(reading, "_FEWEST_FOR_PROCESSES", 2)
    monkeypatch.setattr(reading, "_CHUNK", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    (tmp_path / "pickle.py").write_text("raise SystemExit")  # of the current folder nothing is imported
    monkeypatch.chdir(tmp_path)
    data, _ = load(root, on_bad="skip")
    assert data.fingerprint == alone.fingerprint


def test_two_pictures_in_a_jpeg_count_as_the_first(root):
    write(root / "cat" / "0.jpg", format="MPO", save_all=True, append_images=[picture(1)])
    data, paths = load(root)
    assert paths[0] == "cat/0.jpg"
    assert data.notes == ()


def test_every_extension_can_be_read():
    extensions = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert extensions >= imagefile.EXTENSIONS
