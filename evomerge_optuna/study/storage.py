"""The database and the artifact store: opened here, named without passwords, errors in words."""

import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url

from evomerge_optuna.errors import StorageError, UsageError
from evomerge_optuna.explain import one_line
from evomerge_optuna.home import home

STORAGE_VARIABLE = "EVOMERGE_STORAGE"
ARTIFACTS_VARIABLE = "EVOMERGE_ARTIFACTS"
_SQLITE_TIMEOUT = 60.0  # seconds a writer waits for another one
_PATIENCE = 600.0  # seconds that a worker waits for a server that is gone


@dataclass(frozen=True)
class Store:
    """Where studies are kept: an RDB for trials, a folder for artifacts."""

    url: URL
    rdb: RDBStorage
    artifacts: FileSystemArtifactStore
    artifacts_folder: Path

    def __str__(self) -> str:
        return shown(self.url)


def default_url() -> str:
    """`$EVOMERGE_STORAGE`, else a SQLite file in the home folder."""
    return os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{home() / 'evomerge.db'}"


def parse_url(text: str) -> URL:
    """A SQLAlchemy URL; `postgres://` and `postgresql://` mean psycopg 3, `~` the home folder.

    Raises:
        UsageError: not a database URL, or a database that is not supported.
    """
    forms = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError) as error:
        raise UsageError(f"the storage URL cannot be read; {forms}") from error
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UsageError(f"storage '{one_line(url.drivername, 40)}' is not supported; {forms}")
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", unquote(text)):
        raise UsageError(f"the storage URL has a character that is no text; {forms}")
    try:
        # The engine refuses some URLs, or warns, in words that show the query.
        with warnings.catch_warnings(action="error", category=exc.SAWarning):
            url.get_dialect()().create_connect_args(url)
    except (exc.ArgumentError, exc.SAWarning, ValueError) as error:
        raise UsageError(f"the storage URL has a part that cannot be; {forms}") from error
    if url.drivername == "sqlite":
        return url.set(database=_sqlite_file(url.database))
    # Else the rest of a password would pass for a host, and be shown.
    if text.count("@") > (url.username is not None):
        raise UsageError(
            f"the storage URL has an '@' too many; in a name or password write %40 for it; {forms}"
        )
    return url


def _sqlite_file(database: str | None) -> str:
    if database in (None, "", ":memory:"):
        raise UsageError("a study in memory could not be resumed; write sqlite:///FILE")
    file = os.path.expanduser(str(database))
    if file.startswith("~"):
        raise UsageError("the storage URL names a home folder that is none; write sqlite:///FILE")
    return file


def shown(url: URL) -> str:
    """The URL as it may be printed: without its password, nor its query, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def open_store(text: str | None = None) -> Store:
    """Opens the storage, making the SQLite file or the tables where there are none.

    Raises:
        UsageError: the URL is wrong.
        StorageError: the database or the artifacts folder cannot be used.
    """
    url = parse_url(text or default_url())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = artifacts_folder(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if url.drivername == "sqlite":
            Path(str(url.database)).expanduser().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be made: {error.strerror}") from error
    try:
        with database_errors(url):
            rdb = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=_engine(url))
            if url.drivername == "sqlite":
                _let_readers_be(rdb)
    except ImportError as error:
        raise StorageError(
            "PostgreSQL needs the psycopg driver: pip install 'evomerge-optuna[postgres]'"
        ) from error
    return Store(url, rdb, FileSystemArtifactStore(str(folder)), folder)


def artifacts_folder(url: URL) -> Path:
    """`$EVOMERGE_ARTIFACTS`, else `artifacts` beside the SQLite file or in the home folder."""
    if given := os.environ.get(ARTIFACTS_VARIABLE):
        return Path(given).expanduser().absolute()
    if url.drivername == "sqlite":
        return Path(str(url.database)).expanduser().absolute().parent / "artifacts"
    return home() / "artifacts"


@contextmanager
def database_errors(url: URL) -> Iterator[None]:
    """Turns what a database driver raises into one line without a password.

    Raises:
        StorageError: what is wrong, where, and the cure.
    """
    try:
        yield
    except (exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StorageError(f"storage {shown(url)}: {_reason(error, url)}") from error
    except RuntimeError as error:
        # Optuna raises it for tables of another version.
        if "table" not in str(error) and "version" not in str(error):
            raise
        raise StorageError(
            f"storage {shown(url)} was made by another version of Optuna: "
            f"{str(error).splitlines()[0]}"
        ) from error


@contextmanager
def patience(store: Store, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Waits for a PostgreSQL server that does not answer, instead of failing at once.

    What was under way on the connection that broke fails nevertheless; see `is_lost_connection`.
    """
    if store.url.drivername == "sqlite":
        yield
        return
    over = Event()

    def connect(dialect: Any, _: Any, arguments: Any, options: Any) -> Any:
        pause, give_up = 0.5, time.monotonic() + _PATIENCE
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.dbapi.OperationalError as error:
                if over.is_set() or time.monotonic() > give_up:
                    raise
                say(f"{store}: {_reason(error, store.url)}; trying again for {_PATIENCE:.0f} s")
            over.wait(pause)
            pause = min(2 * pause, 10.0)

    event.listen(store.rdb.engine, "do_connect", connect)
    try:
        yield
    finally:
        over.set()
        event.remove(store.rdb.engine, "do_connect", connect)


def is_lost_connection(error: BaseException | None) -> bool:
    """Did a database error come of a connection that broke?"""
    while error is not None:
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            return True
        error = error.__cause__
    return False


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


def _reason(error: BaseException, url: URL) -> str:
    """The driver's own first line, found under Optuna's and SQLAlchemy's wrapping."""
    while error.__cause__ is not None:
        error = error.__cause__
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    reason = lines[0] if lines else type(original).__name__
    for secret in (url.password, url.query.get("password"), url.query.get("sslpassword")):
        if secret:
            reason = reason.replace(str(secret), "***")
    return reason + _cure(reason, url)


def _cure(reason: str, url: URL) -> str:
    if "password authentication failed" in reason:
        return f"; correct the password in {STORAGE_VARIABLE} or --storage"
    if "refused" in reason or "could not translate host" in reason or "resolve" in reason:
        return "; is the server running, and are host and port right?"
    if "does not exist" in reason:
        return f"; create it: createdb {url.database}"
    if "locked" in reason:
        return "; another program holds it: wait, or use PostgreSQL for many workers"
    if "disk" in reason and "full" in reason:
        return "; free some space and run again: every finished trial is kept"
    if "not a database" in reason:
        return "; the file is damaged or something else; restore it or name another"
    if "unable to open" in reason or "readonly" in reason:
        return "; may this user write that file and its folder?"
    return ""
