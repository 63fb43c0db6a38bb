"""How a study's database is reached."""

import pytest
from sqlalchemy.engine import make_url

from search import database
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


def test_what_a_stopped_process_holds_it_does_not_hold_for_ever(asked):
    assert "idle_in_transaction_session_timeout" in connect(asked)["options"]
