"""What is kept of cases and of terms chosen after looking, by several commands at once."""

import threading

import pytest
from sqlalchemy import event

from search import study
from search.cases import Exploration, store_exploration, stored_explorations
from search.config import StudyConfig
from search.storageurl import VARIABLE

CONFIG = StudyConfig(name="asked")


def terms(margin):
    return Exploration(CONFIG.confirm.model_copy(update={"margin": margin}), ())


@pytest.fixture(params=["sqlite", "postgresql"])
def folder(tmp_path, request, monkeypatch):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url("asked")
        monkeypatch.setenv(VARIABLE, url.render_as_string(hide_password=False))
    study.create(tmp_path, CONFIG, ("maximize",), "data").disconnect()
    return tmp_path


def store(folder, exploration):
    storage = study.load(folder, CONFIG.name)
    store_exploration(storage, exploration)
    storage.disconnect()


def test_terms_are_kept_once_and_in_the_order_of_asking(folder):
    for margin in (0.03, 0.01, 0.03, 0.02):
        store(folder, terms(margin))
    assert stored_explorations(study.load(folder, CONFIG.name)) == [terms(0.03), terms(0.01), terms(0.02)]


def test_of_two_who_ask_at_once_neither_takes_the_others_terms_back(folder):
    storage = study.load(folder, CONFIG.name)
    other = threading.Thread(target=store, args=(folder, terms(0.02)))

    def let_the_other_ask(_connection, _cursor, statement, *_):
        if statement.startswith("INSERT INTO study_user_attributes") and other.ident is None:
            other.start()
            other.join(1.0)  # it ends meanwhile, unless it has to wait

    event.listen(storage.backend.engine, "before_cursor_execute", let_the_other_ask)
    store_exploration(storage, terms(0.01))
    other.join()
    assert set(map(repr, stored_explorations(storage))) == {repr(terms(0.01)), repr(terms(0.02))}
