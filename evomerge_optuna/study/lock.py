"""One process at a time runs a study: a file lock beside SQLite, an advisory lock on PostgreSQL.

Both are let go by the operating system or the server when their holder dies, however it dies.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy
from sqlalchemy.engine import URL

from evomerge_optuna.errors import StudyBusyError
from evomerge_optuna.study.storage import Store

_PATIENCE = 2.0  # seconds; a killed holder's lock is free within milliseconds


@contextmanager
def hold(store: Store, name: str) -> Iterator[None]:
    """Holds the study of this name for this process alone.

    Raises:
        StudyBusyError: another process holds it.
    """
    locked = _file_lock if store.url.drivername == "sqlite" else _advisory_lock
    with locked(store, name):
        yield


def lock_file(url: URL, name: str) -> Path:
    """The lock's file beside a SQLite database."""
    database = Path(str(url.database)).absolute()
    return database.with_name(f".{database.name}.{_key(name):016x}.lock")


@contextmanager
def _file_lock(store: Store, name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file(store.url, name), timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise _busy(store, name) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory_lock(store: Store, name: str) -> Iterator[None]:
    key = {"key": _key(name)}
    engine = store.rdb.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.detach()  # never back into the pool, where the lock would live on
        # The server looks whether a silent holder still lives: a host can vanish without goodbye.
        connection.execute(
            sqlalchemy.text(
                "SELECT set_config('tcp_keepalives_idle', '30', false),"
                " set_config('tcp_keepalives_interval', '10', false),"
                " set_config('tcp_keepalives_count', '3', false),"
                " set_config('lock_timeout', :patience, false)"
            ),
            {"patience": f"{_PATIENCE:.0f}s"},
        )
        try:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), key)
        except sqlalchemy.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            raise _busy(store, name) from error
        try:
            yield
        finally:
            with suppress(sqlalchemy.exc.SQLAlchemyError):  # a lost connection has let go already
                connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), key)


def _busy(store: Store, name: str) -> StudyBusyError:
    return StudyBusyError(
        f"study '{name}' in {store} is being run by another process; "
        "wait for it or stop it, then try again"
    )


def _key(name: str) -> int:
    """63 bits of a hash: an advisory lock is named by a signed 64-bit number."""
    return int.from_bytes(hashlib.sha256(f"evomerge {name}".encode()).digest()[:8]) >> 1
