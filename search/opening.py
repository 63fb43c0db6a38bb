"""Opens a study that may be a stranger's, worked out as far as commands on a finished study need it."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from search import database, folder, storageurl
from search.apart import Calls, here
from search.config import StudyConfig
from search.errors import DataError, StorageError
from search.plainyaml import dump
from search.plan import StudyPlan, make_plan
from search.run import check_same
from search.study import Storage, kept_settings, load
from search.trust import PERMISSION, enter, kept_config, without_fetching
from search.wellformed import load_kept


def open_study(
    study: str, *, allow_code: bool, call: Calls = here, patient: bool = False
) -> tuple[StudyPlan, Storage, Path]:
    """A study's plan, storage and folder.

    Args:
        study: Its folder, or its name below `studies/`.
        allow_code: Import the code, and fetch the data, that its configuration names.
        call: Who prices networks, which takes torch.
        patient: Wait for a server that is away, as what launches work does.

    Raises:
        ConfigError: Its configuration cannot be used, names code that is not allowed, or is not the study's own.
        DataError: Its data cannot be read.
        StorageError: There is none, or it is not fit to be used.
    """
    where = enter(study)
    config = kept_config(where, allow_code=allow_code)
    storage = load_kept(where, config, patient=patient)
    plan = plan_of(config, allow_code=allow_code, call=call)
    check_same(plan, storage, where)
    return plan, storage, where


def joinable(study: str) -> AbstractContextManager[Path]:
    """The folder of a study to join: its own, or one for the time being where only its storage is at hand.

    Raises:
        ConfigError: The environment names a storage that cannot be used.
        StorageError: There is no such study, it cannot be reached, or a link in its folder leads elsewhere.
    """
    try:
        folder.find(study)
    except StorageError:
        return _adopted(study)
    where = enter(study)
    database.wait_for(database.place_of(where))
    return nullcontext(where)


@contextmanager
def _adopted(name: str) -> Iterator[Path]:
    """A study folder for the time being, for a study that is known by its name in the environment's storage.

    Raises:
        ConfigError: The environment names no storage, or one that cannot be used.
        StorageError: The storage cannot be reached, or holds no such study.
    """
    url = storageurl.asked()
    if url is None:
        msg = (
            f"{name!r} is no study folder (none with a config.yaml), and {storageurl.VARIABLE} names no storage to "
            "look for a study of that name in; give the path of a folder, or set it"
        )
        raise StorageError(msg)
    with tempfile.TemporaryDirectory(prefix="filter-search-") as made:
        where = Path(made)
        storageurl.keep(where, url)
        with database.guarded(where):
            storage = load(where, name, patient=True)
            kept = kept_settings(storage)
        if kept is None:
            msg = f"the study {name!r} has not begun yet; start workers once `filter-search run` has"
            raise StorageError(msg)
        folder.write_whole(where / "config.yaml", dump(kept))
        yield where


def plan_of(config: StudyConfig, *, allow_code: bool, call: Calls = here) -> StudyPlan:
    """A study worked out without fetching data that are not there, unless allowed; see `plan.make_plan`.

    Raises:
        DataError: They are not there, and it is to be allowed.
    """
    if allow_code or not config.data.download:
        return make_plan(config, call)
    try:
        return replace(make_plan(without_fetching(config), call), config=config)
    except DataError as error:
        msg = f"{error}; a study folder's own data.download is not followed unless you add {PERMISSION}"
        raise DataError(msg) from None
