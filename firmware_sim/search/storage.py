"""Where the trials of a search are kept: a database or a journal file that several processes and machines may share.

A storage is looked at before it is opened for writing. One that another version of optuna, another program or another
search has written is refused, and stays as it is byte for byte.
"""

import functools
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from firmware_sim.search.space import VERSION

#: What a trial is judged by, in this order, each the lower the better.
OBJECTIVES = ("error", "luts", "latency")

#: Study attribute that says what the trials have in common.
_IDENTITY = "braggnn_edge"
#: Tables by which optuna's databases are known.
_TABLES = {"alembic_version", "version_info", "studies", "trials"}
#: Seconds that a process waits for another one which is making the tables, or writes a line of a journal.
_PATIENCE = 20.0
#: Seconds that a process waits for another one's transaction.
_TIMEOUT = 60.0


def address(storage: str, run: Path, folder: Path) -> str:
    """The storage of a configuration in full: "journal:PATH" or a database URL.

    run: run directory, where the default lies; folder: of the configuration, which relative paths start from. ``$NAME``
    is expanded, so that a password need not be in a file. Raises UserError for another form.
    """
    if not storage:
        return f"sqlite:///{run / 'search.db'}"
    kind, _, rest = storage.partition(":")
    if kind == "journal" and rest:
        return f"journal:{config.resolve_path(rest, folder)}"
    if kind == "sqlite" and rest.startswith("///"):
        return f"sqlite:///{config.resolve_path(rest[3:], folder)}"
    expanded = config.expand_variables(storage, "search: storage")
    if "://" not in expanded:
        raise UserError(
            f"search: storage {storage!r} is not understood; expected 'journal:PATH', "
            "'sqlite:///PATH', 'postgresql://USER@HOST/NAME' or 'mysql+pymysql://USER@HOST/NAME'"
        )
    return expanded


def shown(where: str) -> str:
    """An address without its password, for messages."""
    if where.startswith("journal:"):
        return where
    try:
        return sqlalchemy.engine.make_url(where).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return where.partition(":")[0] + "://..."


def open_study(where: str, name: str, identity: Mapping[str, Any]) -> optuna.Study:
    """The study of this name, made if it is not there. ``identity`` is what its trials must have in common.

    Raises UserError, and has written nothing, for a storage of another version and for a study of another identity.
    """
    storage = _opened(where, create=True)
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        if _claimed(study):
            check(study, identity, where)
            return study
    study = optuna.create_study(
        storage=storage, study_name=name, directions=["minimize"] * len(OBJECTIVES), load_if_exists=True
    )
    if not _claimed(study):
        with warnings.catch_warnings():  # the names are for other viewers of the storage only
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(OBJECTIVES))
        study.set_user_attr(_IDENTITY, dict(identity))
    check(study, identity, where)
    return study


def read_study(where: str, name: str) -> optuna.Study:
    """A study that is there, to read; UserError when there is none, or one of another version."""
    study = None
    if not _missing(where):
        storage = _opened(where, create=False)
        if name in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=name, storage=storage)
    if study is None or not _claimed(study):
        raise UserError(f"search: no study {name!r} in {shown(where)}; run `make search` first")
    _check_version(study.user_attrs[_IDENTITY], name, where)
    return study


def check(study: optuna.Study, identity: Mapping[str, Any], where: str) -> None:
    """Refuse a study whose trials cannot be compared with those of ``identity``; the message says in what."""
    found = study.user_attrs.get(_IDENTITY, {})
    _check_version(found, study.study_name, where)
    different = [key for key in {**found, **identity} if found.get(key) != identity.get(key)]
    if different:
        parts = []
        for key in different:
            old, new = found.get(key), identity.get(key)
            if isinstance(old, dict) and isinstance(new, dict):
                keys = sorted(k for k in {**old, **new} if old.get(k) != new.get(k))
                parts.append(f"[{key}] {', '.join(keys)}")
            else:
                parts.append({"data": "the peaks"}.get(key, key))
        raise UserError(
            f"search: the study {study.study_name!r} in {shown(where)} was made with other values of "
            f"{'; '.join(parts)}, and its trials cannot be compared with new ones; set another study or storage in "
            "[search]"
        )


def _check_version(found: Mapping[str, Any], name: str, where: str) -> None:
    if found.get("version") != VERSION:
        raise UserError(
            f"search: the study {name!r} in {shown(where)} is of version {found.get('version')} of this search, "
            f"expected {VERSION}; continue it with the release that made it, or set another study in [search]"
        )


def _claimed(study: optuna.Study) -> bool:
    """Whether a study says what it is; one that does not and has trials is somebody else's."""
    if _IDENTITY in study.user_attrs:
        return True
    if len(study.directions) != len(OBJECTIVES) or study.get_trials(deepcopy=False):
        raise UserError(
            f"search: the study {study.study_name!r} in this storage was not made by a search of circuits; set another "
            "study in [search]"
        )
    return False


def _missing(where: str) -> bool:
    kind, _, rest = where.partition(":")
    return (kind == "journal" and not Path(rest).exists()) or (kind == "sqlite" and not Path(rest[3:]).exists())


def _opened(where: str, create: bool) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kind, _, rest = where.partition(":")
    if kind in ("journal", "sqlite"):
        path = Path(rest if kind == "journal" else rest[3:])
        if not path.parent.is_dir():
            raise UserError(f"search: the folder of {shown(where)} does not exist; make it, or correct storage")
    if kind == "journal":
        return _journal(Path(rest), where)
    _check_database(where)
    options: dict[str, Any] = {}
    if kind == "sqlite":  # opening a file is cheap, and a connection that is kept would be left for the collector
        options = {"connect_args": {"timeout": _TIMEOUT}, "poolclass": sqlalchemy.pool.NullPool}
    # Two processes that make the tables at once are in each other's way; the later one finds them made.
    return _patiently(
        lambda: RDBStorage(where, engine_kwargs=options),
        (sqlalchemy.exc.DatabaseError, optuna.exceptions.StorageInternalError),
        where,
    )


def _journal(path: Path, where: str) -> BaseStorage:
    """A line that is being written is read as a damaged one: another look tells."""
    return _patiently(
        lambda: JournalStorage(JournalFileBackend(str(path))),
        (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError),
        where,
        patience=2.0,
    )


def _patiently(
    make: Callable[[], BaseStorage], passing: tuple[type[Exception], ...], where: str, patience: float = _PATIENCE
) -> BaseStorage:
    """``make()``, again while it fails with one of ``passing``; UserError after ``patience`` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            return make()
        except passing as error:
            if time.monotonic() > end:
                raise UserError(
                    f"search: the storage {shown(where)} cannot be used ({_first_line(error)}); it may be damaged or "
                    "of another version: set another storage in [search]"
                ) from error
        time.sleep(0.2)


def _check_database(where: str) -> None:
    """Look at a database without writing; UserError unless it is empty or of this optuna's own version."""
    if _missing(where):
        return
    end = time.monotonic() + _PATIENCE
    while not _is_ready(where):
        if time.monotonic() > end:
            raise UserError(
                f"search: {shown(where)} holds tables, but not those of a search; set another storage in [search]"
            )
        time.sleep(0.2)


def _is_ready(where: str) -> bool:
    """Whether a database is empty or has all its tables and this version; UserError for another version."""
    try:
        engine = sqlalchemy.create_engine(_read_only(where))
        try:
            with engine.connect() as connection:
                tables = set(sqlalchemy.inspect(connection).get_table_names())
                if not tables:
                    return True
                if not tables >= _TABLES:
                    return False
                revision = connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version"))
                library = connection.scalar(sqlalchemy.text("SELECT library_version FROM version_info"))
        finally:
            engine.dispose()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(
            f"search: the storage {shown(where)} needs a driver that is not installed ({error}); "
            "pip install 'psycopg[binary]' for postgresql://, PyMySQL for mysql+pymysql://"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UserError(
            f"search: the storage {shown(where)} cannot be read ({_first_line(error)}); nothing was written to it"
        ) from error
    if revision is None or library is None:
        return False  # the process that makes it has not come that far
    head = _schema()
    if revision != head:
        raise UserError(
            f"search: the storage {shown(where)} has optuna's schema {revision} (made with optuna {library}), optuna "
            f"{optuna.__version__} needs {head}; nothing was written to it: use that version, or set another storage "
            "in [search]"
        )
    return True


@functools.cache
def _schema() -> str:
    """The schema of this optuna's databases, asked of one in memory."""
    storage = RDBStorage("sqlite://")
    try:
        return storage.get_head_version()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _read_only(where: str) -> str:
    if not where.startswith("sqlite:///"):
        return where
    path = Path(where.removeprefix("sqlite:///"))
    # A process that was killed while it wrote leaves its journal, and SQLite takes back what was half written; it
    # cannot do so without writing.
    mode = "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"
    return f"sqlite:///file:{quote(str(path))}?mode={mode}&uri=true"


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error or type(error).__name__).partition("\n")[0]
