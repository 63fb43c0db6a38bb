"""How a study's database is reached."""

import pytest
from sqlalchemy.engine import make_url

from search import database, study
from search.errors import ConfigError
from search.storageurl import VARIABLE

NAMED = "postgresql+psycopg://user@host/study"


@pytest.fixture
def asked(monkeypatch):
    """What Optuna is asked to connect with."""
    found = {}

    def refuse(url, engine_kwargs, **_):
        found.update(engine_kwargs["connect_args"])
        raise RuntimeError("seen")

    monkeypatch.setattr(database, "RDBStorage", refuse)
    return found


def connect(asked):
    with pytest.raises(database.StorageError):
        database.connect(make_url(NAMED), create=False)
    return asked


def test_a_password_of_the_environment_is_for_no_host_that_a_folder_names(asked, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert connect(asked)["password"] == ""


def test_it_is_for_the_host_that_the_environment_names(asked, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv(VARIABLE, NAMED)
    assert "password" not in connect(asked)


def test_nor_is_it_sent_to_ask_whether_a_study_exists(tmp_path, monkeypatch):
    asked = []
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(
        database.sqlalchemy, "create_engine", lambda *_, connect_args, **__: asked.append(connect_args)
    )
    (tmp_path / "storage.url").write_text(f"{NAMED}\n")
    pytest.importorskip("psycopg")
    with pytest.raises(AttributeError):  # of None, in the engine's place
        study.exists(tmp_path, "study")
    assert asked[0]["password"] == ""


def test_a_study_in_a_file_is_not_gone_on_with_beside_one_on_a_server(tmp_path, monkeypatch):
    pytest.importorskip("psycopg")
    (tmp_path / "study.db").touch()
    database.refuse_two_places(tmp_path)
    monkeypatch.setenv(VARIABLE, NAMED)
    with pytest.raises(ConfigError, match=r"is a file, study\.db, but FILTER_SEARCH_STORAGE names a server"):
        database.refuse_two_places(tmp_path)


def test_a_folder_comes_to_name_the_server_its_study_is_on(tmp_path, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv(VARIABLE, NAMED.replace("user@", "user:secret@"))
    database.keep(tmp_path)
    assert (tmp_path / "storage.url").read_text() == f"{NAMED}\n"


def test_what_a_stopped_process_holds_it_does_not_hold_for_ever(asked):
    assert "idle_in_transaction_session_timeout" in connect(asked)["options"]
