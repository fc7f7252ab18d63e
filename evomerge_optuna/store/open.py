"""The database, its locks and the artifact store: all opened here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import create_engine, exc
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from evomerge_optuna.errors import StorageError, UsageError
from evomerge_optuna.home import home
from evomerge_optuna.store.advisory_locks import AdvisoryLocks
from evomerge_optuna.store.artifacts import open_artifacts
from evomerge_optuna.store.faults import database_errors
from evomerge_optuna.store.file_locks import FileLocks
from evomerge_optuna.store.lock import PATIENCE, Locks
from evomerge_optuna.store.sqlite_ids import hand_out_once
from evomerge_optuna.store.store import Store
from evomerge_optuna.store.urls import default_url, parse_url, shown

_SQLITE_TIMEOUT = 60.0  # seconds a writer waits for another one
_TABLES = "tables"  # what is locked while they are made


def open_store(text: str | None = None) -> Store:
    """Opens the storage, making the SQLite file or the tables where there are none.

    Raises:
        UsageError: the URL is wrong, or what `$EVOMERGE_ARTIFACTS` says.
        StorageError: the database or the artifact store cannot be used.
    """
    url = parse_url(text or default_url())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = _folder(url)
    if url.drivername == "sqlite":
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{error.filename}: cannot be made: {error.strerror}") from error
    artifacts = open_artifacts(folder / "artifacts")
    with database_errors(url), _extras_named():
        rdb, locks = _opener(url)(url)
    return Store(url, rdb, locks, artifacts)


def upgrade(text: str | None = None) -> str:
    """Brings the tables of an older Optuna up to date; returns their version.

    Raises:
        UsageError: the URL is wrong, or a proxy's.
        StorageError: the database cannot be used, or is of a later Optuna.
    """
    url = parse_url(text or default_url())
    if url.drivername == "grpc":
        raise UsageError("upgrade the proxy's database itself, with its own URL")
    with database_errors(url), _extras_named():
        rdb = _tables(url, of_any_version=True)
        if rdb.get_current_version() not in rdb.get_all_versions():
            raise StorageError(f"storage {shown(url)} is of a later Optuna; install that one")
        rdb.upgrade()
    return rdb.get_current_version()


def _folder(url: URL) -> Path:
    """The SQLite file's, else the home folder; artifacts are in it unless they are elsewhere."""
    if url.drivername == "sqlite":
        return Path(str(url.database)).expanduser().absolute().parent
    return home()


def _opener(url: URL) -> Callable[[URL], tuple[BaseStorage, Locks]]:
    return {
        "sqlite": _open_sqlite,
        "postgresql+psycopg": _open_postgres,
        "grpc": _open_proxy,
    }[url.drivername]


def _open_sqlite(url: URL) -> tuple[BaseStorage, Locks]:
    locks = FileLocks(Path(str(url.database)).absolute())
    with locks.locked(_TABLES, PATIENCE):
        rdb = _tables(url)
        _let_readers_be(rdb)
        hand_out_once(rdb)
    return rdb, locks


def _open_postgres(url: URL) -> tuple[BaseStorage, Locks]:
    engine = create_engine(url, poolclass=NullPool, connect_args=_engine(url)["connect_args"])
    with AdvisoryLocks(engine).locked(_TABLES, PATIENCE):
        rdb = _tables(url)
    return rdb, AdvisoryLocks(rdb.engine)


def _open_proxy(url: URL) -> tuple[BaseStorage, Locks]:
    from evomerge_optuna.store.proxy import connect

    return connect(str(url.host), int(url.port or 0))


def _tables(url: URL, *, of_any_version: bool = False) -> RDBStorage:
    """Optuna's storage, which makes its tables where there are none: one process at a time."""
    return RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=_engine(url),
        skip_compatibility_check=of_any_version,
    )


@contextmanager
def _extras_named() -> Iterator[None]:
    """Names the extra that a missing package belongs to."""
    try:
        yield
    except ImportError as error:
        extra = "grpc" if "grpc" in str(error) else "postgres"
        raise StorageError(
            f"this storage needs a driver: pip install 'evomerge-optuna[{extra}]'"
        ) from error


def _engine(url: URL) -> dict[str, object]:
    if url.drivername == "sqlite":
        return {"connect_args": {"timeout": _SQLITE_TIMEOUT}}
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}


def _let_readers_be(rdb: RDBStorage) -> None:
    """Write-ahead logging, a property of the file: who reads does not keep the worker from writing.

    Without it a dashboard, or any reader that is slow to end its transaction, locks the study.
    """
    with suppress(exc.OperationalError), rdb.engine.connect() as connection:
        if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
