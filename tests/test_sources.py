"""Images from files, functions and torchvision's sets, as the configuration names them."""

import bz2
import inspect
import pickle
import shutil
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from search.data import TEST, VALIDATION
from search.dataconfig import TORCHVISION_NAMES, DataConfig
from search.errors import ConfigError, DataError
from search.sources import load
from search.sources.torchvisionsets import _SPLITS
from search.splits import Splits

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def arrays(count=12, shape=(8, 8), **others):
    return {"x_train": pixels(count, *shape), "y_train": np.arange(count) % 3, **others}


def load_npz(tmp_path, values, **settings):
    np.savez(tmp_path / "shapes.npz", **values)
    return load(DataConfig(source="npz", path=str(tmp_path / "shapes.npz"), **settings))


def test_a_file_with_a_test_split_and_names(tmp_path):
    values = arrays(x_test=pixels(6, 8, 8), y_test=np.arange(6)[:, None] % 3, classes=np.array(["a", "b", "c"]))
    data = load_npz(tmp_path, values)
    assert (data.name, data.classes, data.class_names) == ("shapes", 3, ("a", "b", "c"))
    assert np.array_equal(data.images[:, 0], np.concatenate([values["x_train"], values["x_test"]]))
    assert data.labels.tolist() == [0, 1, 2] * 6
    assert Splits(data, DataConfig()).test.tolist() == list(range(12, 18))


def test_a_file_without_a_test_split_leaves_it_to_be_drawn(tmp_path):
    data = load_npz(tmp_path, arrays())
    assert (data.own_split, data.class_names) == (None, ())


@pytest.mark.parametrize(
    ("shape", "comes_out"),
    [
        ((8, 6), (1, 8, 6)),
        ((8, 6, 3), (3, 8, 6)),
        ((3, 8, 6), (3, 8, 6)),
        ((8, 8, 1), (1, 8, 8)),
        ((1, 8, 8), (1, 8, 8)),
        ((5, 8, 8), (5, 8, 8)),
        ((8, 8, 5), (5, 8, 8)),
    ],
)
def test_channels_are_the_axis_that_is_shorter(tmp_path, shape, comes_out):
    values = arrays(shape=shape)
    data = load_npz(tmp_path, values)
    assert data.image_shape == comes_out
    last = len(shape) == 3 and shape[-1] == comes_out[0]
    expected = np.moveaxis(values["x_train"], -1, 1) if last else values["x_train"]
    assert np.array_equal(data.images, expected.reshape(-1, *comes_out))


@pytest.mark.parametrize(("given", "kept"), [("f8", "float32"), ("f2", "float32"), ("i8", "uint8"), ("u2", "uint8")])
def test_numbers_are_kept_as_bytes_or_small_floats(tmp_path, given, kept):
    values = arrays()
    data = load_npz(tmp_path, values | {"x_train": values["x_train"].astype(given)})
    assert data.images.dtype == kept
    assert np.array_equal(data.images[:, 0], values["x_train"])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_are_brought_to_the_resolution(tmp_path, dtype):
    images = np.zeros((6, 8, 24, 2), dtype)
    images[:, :, 8:16] = 200  # the middle third
    data = load_npz(tmp_path, {"x_train": images, "y_train": np.arange(6) % 2}, resolution=4)
    assert data.images.shape == (6, 2, 4, 4)
    assert data.images.dtype == dtype
    assert (data.images > 150).all()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"y_train": None}, "has x_train, but no y_train; x_train and y_train must be there"),
        ({"x_test": pixels(2, 8, 8)}, "but no y_test; .* x_test comes with y_test"),
        ({"x_train": pixels(12)}, r"x_train has shape \(12,\); give \(images, height, width\)"),
        ({"x_train": pixels(0, 8, 8)}, r"x_train has shape \(0, 1, 8, 8\)"),
        ({"x_train": pixels(12, 8, 8, 8)}, "no axis stands out as that of the channels"),
        ({"x_train": np.full((12, 8, 8), 256)}, "whole numbers from 256 to 256; give whole numbers from 0 to 255"),
        ({"x_train": np.full((12, 8, 8), -1)}, "whole numbers from -1 to -1"),
        ({"x_train": np.full((12, 8, 8), np.nan)}, "numbers that are not finite"),
        ({"x_train": np.full((12, 8, 8), True)}, "values of type bool"),
        ({"y_train": np.arange(11)}, r"y_train has shape \(11,\) for 12 images; give one label each, \(12,\)"),
        ({"y_train": np.eye(12)}, r"y_train has shape \(12, 12\) for 12 images"),
        ({"y_train": np.zeros(12)}, "y_train is of type float64; give whole numbers"),
        ({"y_train": np.arange(12) % 3 + 1}, "labels from 1 to 3 for 4 classes, without training images of 0; number"),
        ({"y_train": np.arange(12) % 3 * 2}, "without training images of 1, 3; number the classes from 0 on"),
        ({"y_train": np.arange(12) % 3 - 1}, "labels from -1 to 1"),
        ({"classes": np.array(["a", "b"])}, "labels from 0 to 2 for 2 classes; .* one name"),
        ({"classes": np.array(list("abcd"))}, "for 4 classes, without training images of 3"),
        ({"classes": np.arange(3)}, r"classes has shape \(3,\) and type int64; give a list of names"),
        (
            {"x_test": pixels(2, 8, 9), "y_test": np.arange(2)},
            r"images of shapes \(1, 8, 8\) as uint8 and \(1, 8, 9\)",
        ),
        ({"x_test": np.ones((2, 8, 8)), "y_test": np.arange(2)}, r"and \(1, 8, 8\) as float32; bring all splits"),
        ({"x_test": pixels(2, 8, 8), "y_test": np.full(2, 3)}, "for 4 classes, without training images of 3"),
        ({"x_train": np.array([None] * 12)}, "cannot be read as a NumPy file .* without Python objects"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changed, says):
    values = {key: value for key, value in (arrays() | changed).items() if value is not None}
    with pytest.raises(DataError, match=says):
        load_npz(tmp_path, values)


def test_further_arrays_are_noted(tmp_path):
    data = load_npz(tmp_path, arrays(subject=np.arange(12)))
    assert data.notes == (f"{tmp_path / 'shapes.npz'} has subject besides: ignored",)


def test_files_that_are_no_arrays_are_refused(tmp_path):
    path = tmp_path / "shapes.npz"
    config = DataConfig(source="npz", path=str(path))
    with pytest.raises(DataError, match=r"shapes.npz does not exist; name a NumPy file"):
        load(config)
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:200] + bytes(100) + whole[300:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as a NumPy file \(.*\); write it with"):
            load(config)
    np.save(tmp_path / "one.npy", pixels(3, 8, 8))
    with pytest.raises(DataError, match="holds one array, not several"):
        load(DataConfig(source="npz", path=str(tmp_path / "one.npy")))
    with pytest.raises(DataError, match="cannot be read as a NumPy file"):
        load(DataConfig(source="npz", path=str(tmp_path)))


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "shapes.npz", **arrays())
    assert load(DataConfig(source="npz", path="~/shapes.npz")).classes == 3


@pytest.fixture
def own_data(monkeypatch, tmp_path):
    """Write a module of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_data", raising=False)

    def write(body):
        monkeypatch.delitem(sys.modules, "own_data", raising=False)
        (tmp_path / "own_data.py").write_text(f"import numpy as np\ndef load():\n    {body}\n")
        (tmp_path / "__pycache__").mkdir(exist_ok=True)
        for stale in (tmp_path / "__pycache__").iterdir():
            stale.unlink()
        return DataConfig(source="factory", factory="own_data:load")

    yield write
    sys.modules.pop("own_data", None)


def test_a_factory(own_data):
    config = own_data("return {'x_train': np.ones((4, 8, 8)), 'y_train': [0, 1, 0, 1], 'classes': ['no', 'yes']}")
    data = load(config)
    assert (data.name, data.images.shape, data.class_names) == ("own_data", (4, 1, 8, 8), ("no", "yes"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("1 / 0", "data.factory own_data:load raised ZeroDivisionError: division by zero; mend it, --debug"),
        ("return [1]", "returned a list; return a dict with x_train and y_train"),
        ("return {'x': 1}", "own_data:load has x, but no x_train and no y_train"),
        ("return {'x_train': 'text', 'y_train': [0]}", r"own_data:load: x_train has shape \(\)"),
        ("return {'x_train': [[1], [1, 2]], 'y_train': [0]}", "x_train is no array"),
    ],
)
def test_a_factory_that_gives_something_else_is_refused(own_data, body, says):
    with pytest.raises(DataError, match=says):
        load(own_data(body))


def test_a_factory_that_is_none_is_refused(own_data):
    own_data("return {}")
    with pytest.raises(ConfigError, match="has no lod"):
        load(DataConfig(source="factory", factory="own_data:lod"))


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_every_set_is_asked_for_as_torchvision_allows(name):
    known = inspect.signature(getattr(datasets, name)).parameters
    any_keyword = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for asked in _SPLITS[name].values():
        assert any_keyword or {*asked} <= {*known}


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def fashion(root, train=40, test=10):
    """Fashion-MNIST's files, with few images."""
    for prefix, count in (("train", train), ("t10k", test)):
        write_idx(root / "FashionMNIST" / "raw" / f"{prefix}-images-idx3-ubyte", pixels(count, 28, 28))
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(root / "FashionMNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", labels)


def test_a_set_held_as_an_array(tmp_path):
    fashion(tmp_path)
    data = load(DataConfig(source="FashionMNIST", path=str(tmp_path)))
    assert (data.name, data.classes, data.class_names[1]) == ("FashionMNIST", 10, "Trouser")
    assert data.images.shape == (50, 1, 28, 28)
    assert data.labels.tolist() == [*range(10)] * 5
    assert Splits(data, DataConfig()).test.tolist() == list(range(40, 50))
    assert load(DataConfig(source="FashionMNIST", path=str(tmp_path), resolution=14)).image_shape == (1, 14, 14)


def test_a_set_held_as_channels_last(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rows = pixels(10, 3072)
    for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list:
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [*range(10)]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    data = load(DataConfig(source="CIFAR10", path=str(tmp_path)))
    assert data.images.shape == (60, 3, 32, 32)
    assert np.array_equal(data.images[0].reshape(-1), rows[0])
    assert data.class_names == tuple("abcdefghij")
    assert (data.own_split == TEST).sum() == 10


def test_a_set_whose_splits_have_a_flag_and_no_checksum(tmp_path):
    for name, count in (("usps.bz2", 20), ("usps.t.bz2", 10)):
        lines = [f"{i % 10 + 1} " + " ".join(f"{k}:0.5" for k in range(1, 257)) for i in range(count)]
        (tmp_path / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    data = load(DataConfig(source="USPS", path=str(tmp_path)))
    assert data.images.shape == (30, 1, 16, 16)
    assert data.labels.max() == 9


def eurosat(root):
    for name in ("Forest", "River"):
        for index in range(3):
            path = root / "eurosat" / "2750" / name / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(8, 8, 3)).save(path)


def test_a_set_read_image_by_image_is_kept(tmp_path, monkeypatch):
    eurosat(tmp_path)
    config = DataConfig(source="EuroSAT", path=str(tmp_path))
    data = load(config)
    assert (data.name, data.class_names, data.own_split) == ("EuroSAT", ("Forest", "River"), None)
    assert data.images.shape == (6, 3, 8, 8)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert load(DataConfig(source="EuroSAT", path=str(tmp_path), resolution=4)).image_shape == (3, 4, 4)
    monkeypatch.setattr("search.sources.torchvisionsets.standardise", None)
    assert load(config).fingerprint == data.fingerprint


def test_a_set_of_three_splits(tmp_path):
    for split in ("train", "valid", "test"):
        for name in ("negative", "positive"):
            path = tmp_path / "rendered-sst2" / split / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels(8, 8, 3)).save(path)
    data = load(DataConfig(source="RenderedSST2", path=str(tmp_path)))
    assert data.own_split.tolist() == [0, 0, VALIDATION, VALIDATION, TEST, TEST]
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_damaged_image_of_a_set_is_named(tmp_path):
    eurosat(tmp_path)
    (tmp_path / "eurosat" / "2750" / "River" / "0.jpg").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"EuroSAT in .* has 1 images that cannot be used \(image 3: .*; get the set anew"
    ):
        load(DataConfig(source="EuroSAT", path=str(tmp_path)))


@pytest.mark.parametrize("name", sorted({*TORCHVISION_NAMES} - {"PCAM"}))
def test_a_set_that_is_not_there_is_not_fetched(tmp_path, name, monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    with pytest.raises(
        DataError, match=rf"{name}.* was looked for below {tmp_path}, but could not be opened"
    ) as caught:
        load(DataConfig(source=name, path=str(tmp_path)))
    assert "data.path to where it lies" in str(caught.value)
    assert ("data.download: true" in str(caught.value)) == (name not in ("FER2013", "ImageNet", "StanfordCars"))


def test_a_set_is_fetched_where_that_is_asked_for_and_it_is_not_there(tmp_path, monkeypatch):
    def fetch(self):
        assert not self._check_exists()
        fashion(tmp_path)

    monkeypatch.setattr(datasets.MNIST, "download", fetch)
    config = DataConfig(source="FashionMNIST", path=str(tmp_path), download=True)
    assert load(config).fingerprint == load(config).fingerprint


@pytest.mark.parametrize("source", ["npz", "folder", "FashionMNIST"])
def test_a_fingerprint_goes_by_what_the_data_are_not_by_where_they_lie(tmp_path, source):
    first, moved = tmp_path / "first", tmp_path / "elsewhere" / "moved"
    first.mkdir()
    match source:
        case "npz":
            np.savez(first / "shapes.npz", **arrays())
        case "folder":
            for name in ("cat", "dog"):
                (first / name).mkdir()
                for number in range(4):
                    Image.fromarray(pixels(8, 8)).save(first / name / f"{number}.png")
        case _:
            fashion(first)

    def fingerprint(root):
        return load(DataConfig(source=source, path=str(root / ("shapes.npz" if source == "npz" else "")))).fingerprint

    kept = fingerprint(first)
    shutil.copytree(first, moved)
    shutil.rmtree(first)
    assert fingerprint(moved) == kept
    match source:
        case "npz":
            np.savez(moved / "shapes.npz", **arrays())
        case "folder":
            (moved / "cat" / "3.png").rename(moved / "dog" / "4.png")
        case _:
            fashion(moved)
    assert fingerprint(moved) != kept


def test_groups_are_guarded_by_the_fingerprint_wherever_they_lie(tmp_path):
    np.savez(tmp_path / "shapes.npz", **arrays(60))

    def fingerprint(name, size):
        path = tmp_path / name
        path.write_text("group,image\n" + "".join(f"{i // size},{i}\n" for i in range(60)))
        return load(DataConfig(source="npz", path=str(tmp_path / "shapes.npz"), groups=str(path))).fingerprint

    ungrouped = load(DataConfig(source="npz", path=str(tmp_path / "shapes.npz"))).fingerprint
    assert fingerprint("a.csv", 6) == fingerprint("b.csv", 6)
    assert len({ungrouped, fingerprint("a.csv", 6), fingerprint("a.csv", 5)}) == 3


def test_groups_keep_images_together(tmp_path):
    np.savez(tmp_path / "shapes.npz", **arrays(60))
    (tmp_path / "groups.csv").write_text(
        "group,image,age\n" + "".join(f"patient {i // 6},{i},40\n" for i in range(60)) + "nobody,60,1\n"
    )
    config = DataConfig(source="npz", path=str(tmp_path / "shapes.npz"), groups=str(tmp_path / "groups.csv"))
    data = load(config)
    assert data.groups.tolist() == np.repeat(np.arange(10), 6).tolist()
    assert data.notes == (f"1 image (60) named in {tmp_path / 'groups.csv'} and not among the images: ignored",)
    splits = Splits(data, config)
    drawn = splits.train_validation(0)
    parts = [{*data.groups[indices]} for indices in (splits.test, drawn.validation, drawn.training)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10


def test_groups_of_a_folder_go_by_path(tmp_path):
    for name in ("cat", "dog"):
        for index in range(2):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(8, 8, 3)).save(tmp_path / "pets" / name / f"{index}.png")
    (tmp_path / "groups.csv").write_text("image,group\ndog/1.png,b\ndog/0.png,a\ncat/0.png,a\ncat/1.png,b\n")
    config = DataConfig(source="folder", path=str(tmp_path / "pets"), groups=str(tmp_path / "groups.csv"))
    assert load(config).groups.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "image,group\n0,a\n1,a\n",
            r"names 2 of 12 images; it lacks 10 images \(such as 2, 3 and 4\): give every image",
        ),
        ("picture,group\n0,a\n", "has columns picture, group; it needs image and group, named in its first line"),
        ("", "has columns nothing"),
        ("image,group\n0,a\n0,b\n", "line 3: image '0' is in group 'b' here and in 'a' before"),
        ("image,group\n0,\n", "line 2: no group for image '0'"),
        ("image,group\n0\n", "line 2: no group for image '0'"),
        (b"image,group\n\xff,a\n", "is no CSV file of UTF-8 text"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_groups_that_do_not_fit_are_refused(tmp_path, text, says):
    path = tmp_path / "groups.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=says):
        load_npz(tmp_path, arrays(), groups=str(path))
