import json
import os
import re
import sys
from urllib.parse import quote, quote_plus

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from search import storageurl
from search.errors import ConfigError, StorageError

CANARY = "c@n/a:r%y?#"
ENCODED = quote(CANARY, safe="")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for variable in (storageurl.VARIABLE, storageurl.FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def name(monkeypatch):
    """Have the environment name a storage."""
    return lambda text: monkeypatch.setenv(storageurl.VARIABLE, text)


def test_without_a_variable_no_server_is_asked_for(name):
    assert storageurl.asked() is None
    name("")
    assert storageurl.asked() is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_url_is_taken_apart_whatever_postgresql_is_called(name, scheme):
    name(f" {scheme}://ann:{ENCODED}@host:5433/studies\n")
    assert storageurl.asked() == URL.create("postgresql+psycopg", "ann", CANARY, "host", 5433, "studies")


def test_a_file_holds_the_url_in_its_first_line(monkeypatch, tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"  postgres://ann:{ENCODED}@host/studies \nmore\n")
    monkeypatch.setenv(storageurl.FILE_VARIABLE, str(path))
    assert storageurl.asked().password == CANARY


def test_parts_among_the_options_take_their_places(name):
    name(f"postgresql://host/?user=ann&password={ENCODED}&dbname=studies&sslmode=require")
    url = storageurl.asked()
    assert (url.username, url.password, url.database) == ("ann", CANARY, "studies")
    assert CANARY not in str(url)
    assert ENCODED not in str(url)


def test_two_storages_are_one_too_many(name, monkeypatch):
    name(f"postgresql://ann:{ENCODED}@host/studies")
    monkeypatch.setenv(storageurl.FILE_VARIABLE, "secret")
    with pytest.raises(ConfigError, match="both set, and a study has one storage; unset one of them"):
        storageurl.asked()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "secret cannot be read \\(No such file or directory\\); have its first line hold"),
        (b"postgresql://ann:\xff@host/studies", "cannot be read \\(it is not UTF-8 text\\)"),
        (b"", "FILTER_SEARCH_STORAGE_FILE \\(.*secret\\) holds no URL"),
    ],
)
def test_a_file_that_names_none_is_refused(monkeypatch, tmp_path, content, says):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv(storageurl.FILE_VARIABLE, str(tmp_path / "secret"))
    with pytest.raises(ConfigError, match=says):
        storageurl.asked()


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "postgresql:hunter2",
        "postgresql://ann:hunter2",
        "postgresql://ann:hunter2/studies",
        "postgresql://ann:p@hunter2@host/studies",
        "postgresql://ann:p@s:hunter2@host/studies",
        "postgresql://ann:p@s/hunter2@host/studies",
        "postgresql://ann:p@s?hunter2@host/studies",
        "postgresql://ann:p@s?hunter2=@host/studies",
        "postgresql://ann:p@s/?hunter2=@host/studies",
        "postgresql://ann:p@s#hunter2@host/studies",
        "postgresql://host/studies?password=hunter2&password=hunter2",
        "postgresql://ann@host/studies\x1b[31mhunter2",
        "postgresql://ann:hunter2@host/" + 4096 * "s",
    ],
)
def test_what_is_no_url_is_refused_and_not_repeated(name, text):
    name(text)
    with pytest.raises(
        ConfigError, match="FILTER_SEARCH_STORAGE holds no URL of a storage; write postgresql://"
    ) as told:
        storageurl.asked()
    error = told.value
    assert "hunter2" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("kind", ["mysql", "postgresql+psycopg2", "postgresql+asyncpg", "redis"])
def test_another_kind_of_storage_is_refused(name, kind):
    name(f"{kind}://ann:hunter2@host/studies")
    with pytest.raises(ConfigError) as told:
        storageurl.asked()
    assert str(told.value).startswith(
        f"FILTER_SEARCH_STORAGE names a storage of the kind {kind}; give a PostgreSQL one"
    )
    assert "hunter2" not in str(told.value)


def test_for_sqlite_no_variable_is_needed(name):
    name("sqlite:////tmp/study.db")
    with pytest.raises(ConfigError, match="kind sqlite; for SQLite name none: the study is then kept in its folder's"):
        storageurl.asked()


def test_a_missing_driver_is_told(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert storageurl.asked() is None, "nobody asked for it"
    name("postgresql://ann@host/studies")
    with pytest.raises(ConfigError, match=r"psycopg, which is not installed; pip install 'filter-search\[postgres\]'"):
        storageurl.asked()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://ann:{ENCODED}@host:1/studies", "postgresql+psycopg://ann@host:1/studies"),
        (f"postgresql://ann@host/studies?password={ENCODED}", "postgresql+psycopg://ann@host/studies"),
        (f"postgresql://host/studies?sslpassword={ENCODED}&sslmode=require", "postgresql+psycopg://host/studies?sslmode=require"),
        ("postgresql://ann@/studies?host=%2Frun", "postgresql+psycopg://ann@/studies?host=%2Frun"),
        ("postgresql://[::1]/studies?passfile=/x", "postgresql+psycopg://[::1]/studies"),
    ],
)  # fmt: skip
def test_files_and_messages_get_no_password(name, text, shown):
    name(text)
    assert storageurl.without_password(storageurl.asked()) == shown


def test_a_folder_keeps_the_place_and_the_environment_completes_it(name, tmp_path):
    assert storageurl.kept(tmp_path) is None
    assert storageurl.of(tmp_path) is None
    name(f"postgresql://ann:{ENCODED}@Host/studies?sslmode=require&keepalives=1")
    storageurl.keep(tmp_path, storageurl.asked())
    assert (tmp_path / "storage.url").read_text() == "postgresql+psycopg://ann@Host/studies?sslmode=require\n"
    assert storageurl.kept(tmp_path).password is None
    name(f"postgres://ann:{ENCODED}@host:5432/studies")
    assert storageurl.of(tmp_path).password == CANARY


def test_a_folder_alone_names_its_storage(tmp_path):
    (tmp_path / "storage.url").write_text("postgresql://ann@host/studies\n")
    assert storageurl.of(tmp_path) == make_url("postgresql+psycopg://ann@host/studies")


@pytest.mark.parametrize("other", ["bob@host/studies", "ann@host2/studies", "ann@host:1/studies", "ann@host/others"])
def test_another_storage_than_the_folders_is_refused(name, tmp_path, other):
    (tmp_path / "storage.url").write_text("postgresql://ann@host/studies\n")
    name(f"postgresql://{other.replace('@', ':hunter2@')}")
    with pytest.raises(ConfigError) as told:
        storageurl.of(tmp_path)
    assert (
        f"is kept in postgresql+psycopg://ann@host/studies, but the environment names postgresql+psycopg://{other};"
        in (str(told.value))
    )
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("postgresql://ann:hunter2@host/studies", "says more than where the storage is"),
        ("postgresql://ann@host/studies?plugin=own", "says more than where"),
        ("postgresql://ann@host/studies?hostaddr=192.0.2.1", "says more than where"),
        ("postgresql://ann@host/studies?passfile=/etc/passwd", "says more than where"),
        ("postgresql://ann@host/studies?options=-csearch_path%3Dx", "says more than where"),
        ("sqlite:////etc/passwd", "names a storage of the kind sqlite"),
        ("hunter2", "holds no URL of a storage"),
        ("", "holds no URL of a storage"),
    ],
)
def test_a_strangers_folder_cannot_say_more(tmp_path, content, says):
    (tmp_path / "storage.url").write_text(content)
    with pytest.raises(StorageError, match=says) as told:
        storageurl.of(tmp_path)
    assert "hunter2" not in str(told.value)


def in_small_letters(text):
    return re.sub("%..", lambda found: found[0].lower(), quote(text, safe=""))


def test_a_strangers_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "storage.url")
    with pytest.raises(StorageError, match=r"storage\.url is no file; restore the study's own"):
        storageurl.kept(tmp_path)


# without what stands around it here, of which a password may consist as well
@given(
    st.text(st.characters(exclude_characters="<>'\""), min_size=1),
    st.sampled_from([str, repr, json.dumps, quote, quote_plus, in_small_letters]),
)
def test_a_password_is_found_however_it_is_written(password, write):
    found = storageurl.redacted(f"<{write(password)}>", URL.create("postgresql", "ann", password))
    assert found in ("<***>", "<'***'>", '<"***">')


def test_a_text_without_the_password_stays(name):
    for url in (
        URL.create("postgresql", "ann"),
        URL.create("postgresql", "ann", ""),
        URL.create("postgresql", "ann", "x"),
    ):
        assert storageurl.redacted("user ann: a.b", url) == "user ann: a.b"


def test_a_study_is_kept_on_the_server_the_url_names(name, postgres, tmp_path):
    text = postgres.url("storageurl").set(drivername="postgres").render_as_string(hide_password=False)
    name(text)
    storageurl.keep(tmp_path, storageurl.asked())
    storage = RDBStorage(storageurl.of(tmp_path).render_as_string(hide_password=False))
    optuna.create_study(storage=storage, study_name="digits")
    for stop in ("fast", "immediate"):
        postgres.stop(stop)
        postgres.start()
        storage.engine.dispose()
        assert optuna.get_all_study_names(storage) == ["digits"]
    storage.remove_session()
    storage.engine.dispose()


def test_a_wrong_password_is_not_let_in_nor_told(name, postgres):
    url = postgres.url("storageurl").set(password=CANARY)
    with pytest.raises(Exception, match="password authentication failed") as told:
        RDBStorage(url.render_as_string(hide_password=False))
    assert storageurl.redacted(str(told.value), url) == str(told.value)
