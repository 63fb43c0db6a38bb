"""How a study's database is reached."""

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from search import database, study, trialstore
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


WRONG = 'FATAL:  password authentication failed for user "user"'
AT = 'connection to server at "{}", port 5432 failed: '
SOCKET = 'connection to server on socket "/run/postgresql/.s.PGSQL.5432" failed: '
REFUSED = f"{AT.format('::1')}Connection refused\n\tIs the server running on that host?"


@pytest.fixture
def opened(monkeypatch):
    """How often a server was asked that refuses so, when it was waited for, and what was said in the end."""
    monkeypatch.setattr(trialstore, "PATIENCE_SECONDS", 0.05)

    def opened(refusal, place=None):
        asked = []

        def refuse(*_, **__):
            asked.append(1)
            raise OperationalError("SELECT 1", {}, Exception(refusal))

        monkeypatch.setattr(database, "RDBStorage", refuse)
        with pytest.raises(database.StorageError, match="cannot be used") as refused:
            database.connect(place or make_url(NAMED), create=False, patient=True)
        return len(asked), str(refused.value)

    return opened


@pytest.mark.parametrize(
    "refusal",
    [
        f"connection failed: {REFUSED}",
        f"connection failed: {AT.format('host')}FATAL:  sorry, too many clients already",
        f"connection failed: {AT.format('host')}FATAL:  the database system is starting up",
        f"connection failed: {REFUSED}\n{AT.format('127.0.0.1')}FATAL:  the database system is shutting down",
        "connection timeout expired",
        f"connection failed: {AT.format('::1')}Cannot assign requested address\n{REFUSED.replace('::1', '127.0.0.1')}",
        f"connection failed: {SOCKET}No such file or directory\n\tIs the server running locally?",
        f"connection failed: {AT.format('host')}SSL SYSCALL error: EOF detected",
        "failed to resolve host 'host': [Errno -3] Temporary failure in name resolution",
    ],
)
def test_a_server_that_is_away_is_waited_for_which_is_said_once(opened, capsys, refusal):
    asked, said = opened(refusal)
    assert asked > 1
    assert refusal.splitlines()[0] in said
    assert capsys.readouterr().err.count("waiting for it") == 1


@pytest.mark.parametrize(
    "refusal",
    [
        f"connection failed: {AT.format('host')}{WRONG}",
        f'connection failed: {AT.format("host")}FATAL:  database "study" does not exist',
        f"connection failed: {REFUSED}\n{AT.format('127.0.0.1')}{WRONG}",
        "failed to resolve host 'host': [Errno -2] Name or service not known",
    ],
)
def test_what_time_does_not_mend_is_refused_at_once(opened, capsys, refusal):
    assert opened(refusal)[0] == 1
    assert capsys.readouterr().err == ""


def test_a_file_is_not_waited_for(opened, tmp_path):
    assert opened("Connection refused", tmp_path / "study.db")[0] == 1
