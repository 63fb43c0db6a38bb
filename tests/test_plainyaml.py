import pytest

from search import plainyaml
from search.errors import ConfigError
from search.exported import read


def test_a_document_may_be_so_long_and_no_longer():
    text = f"a: {'x' * (plainyaml.LARGEST - 3)}"
    assert len(plainyaml.load(text, "it")["a"]) == plainyaml.LARGEST - 3
    with pytest.raises(ConfigError, match=r"^it has 1,048,577 characters; at most 1,048,576 are read: shorten it$"):
        plainyaml.load(text + "x", "it")


def test_of_an_exported_folder_no_more_is_read(tmp_path):
    with (tmp_path / "config.yaml").open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no room
    with pytest.raises(ConfigError, match=r"config\.yaml has 1,048,577 characters"):
        read(tmp_path)
