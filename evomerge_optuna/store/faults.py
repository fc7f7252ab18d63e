"""What this program does when a database fails: it waits, calls again, or explains the error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from sqlalchemy import event, exc
from sqlalchemy.engine import URL

from evomerge_optuna.errors import StorageError
from evomerge_optuna.store.optuna_internals import NO_RECORD, can_be_upgraded, is_of_another_schema
from evomerge_optuna.store.urls import STORAGE_VARIABLE, shown, without_secrets

_PATIENCE = 600.0  # seconds that a worker waits for a server that is gone
ATTEMPTS = 5  # where the connection breaks each time

_NO_RECORD = ((NO_RECORD,), ())  # Optuna's, and those of its proxy

Say = Callable[[str], None]
Result = TypeVar("Result")


def database_failures() -> tuple[type[Exception], ...]:
    """What a storage raises when its database, its server or its proxy fails."""
    grpc = sys.modules.get("grpc")  # which takes long to import, and is there where it is used
    remote = () if grpc is None else (grpc.RpcError,)
    return (optuna.exceptions.StorageInternalError, exc.SQLAlchemyError, *remote)


@contextmanager
def database_errors(url: URL) -> Iterator[None]:
    """Turns what a database driver raises into one line without a password.

    Raises:
        StorageError: what is wrong, where, and the cure.
    """
    try:
        yield
    except database_failures() as error:
        raise StorageError(f"storage {shown(url)}: {_reason(error, url)}") from error
    except KeyError as error:
        if error.args not in _NO_RECORD:
            raise
        raise StorageError(
            f"storage {shown(url)}: what this command was reading is gone, for somebody renamed or "
            "deleted its study; run it again with the name that it has now"
        ) from error
    except RuntimeError as error:
        if not is_of_another_schema(error):
            raise
        cure = (
            "bring its tables up to date, once all its workers have stopped: evomerge-optuna "
            "storage upgrade"
            if can_be_upgraded(error)
            else "install that version or a later one"
        )
        raise StorageError(
            f"storage {shown(url)} was made by another version of Optuna; {cure}"
        ) from error


@contextmanager
def patience(url: URL, rdb: BaseStorage, say: Say = lambda _: None) -> Iterator[None]:
    """Waits for a PostgreSQL server that does not answer, instead of failing at once.

    What was under way on the connection that broke fails nevertheless; see `persistently`.
    """
    if not isinstance(rdb, RDBStorage):
        yield
        return
    over = Event()

    def connect(dialect: Any, _: object, arguments: Any, options: Any) -> object:
        pause, give_up = 0.5, time.monotonic() + _PATIENCE
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.dbapi.OperationalError as error:
                if over.is_set() or time.monotonic() > give_up:
                    raise
                say(f"{shown(url)}: {_reason(error, url)}; trying again for {_PATIENCE:.0f} s")
            over.wait(pause)
            pause = min(2 * pause, 10.0)

    event.listen(rdb.engine, "do_connect", connect)
    try:
        yield
    finally:
        over.set()
        event.remove(rdb.engine, "do_connect", connect)


def persistently(rdb: BaseStorage, call: Callable[[], Result], say: Say = lambda _: None) -> Result:
    """Calls again what the connection broke under; for what may be done twice."""
    for _ in range(ATTEMPTS):
        try:
            return call()
        except database_failures() as error:
            if not is_lost_connection(error):
                raise
            wait_for_proxy(rdb, say)
    return call()


def wait_for_proxy(rdb: BaseStorage, say: Say) -> None:
    """Waits until the proxy and its database answer, if it is one that the connection broke to."""
    give_up = time.monotonic() + _PATIENCE
    while isinstance(rdb, GrpcStorageProxy) and time.monotonic() < give_up:
        try:
            rdb.get_study_id_from_name("")
        except KeyError:
            return
        except database_failures():
            say(f"the storage's proxy does not answer; trying again for {_PATIENCE:.0f} s")
            time.sleep(5)


def is_lost_connection(error: BaseException | None) -> bool:
    """Did a database error come of a connection that broke?"""
    while error is not None:
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            return True
        if isinstance(error, exc.PendingRollbackError):  # Optuna went on after such an error
            return True
        # The proxy is gone, or going, or lost its database.
        if _code(error) in ("UNAVAILABLE", "CANCELLED", "UNKNOWN"):
            return True
        error = error.__cause__
    return False


def _code(error: BaseException) -> str | None:
    """The status of a remote call that failed."""
    code = getattr(error, "code", None)
    return getattr(code(), "name", None) if callable(code) else None


def _reason(error: BaseException, url: URL) -> str:
    """The driver's own first line, found under Optuna's and SQLAlchemy's wrapping."""
    while error.__cause__ is not None:
        error = error.__cause__
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    reason = without_secrets(lines[0] if lines else type(original).__name__, url)
    return reason + _cure(reason, url)


def _cure(reason: str, url: URL) -> str:
    if "password authentication failed" in reason:
        return f"; correct the password in {STORAGE_VARIABLE}, PGPASSWORD or ~/.pgpass"
    if "no password supplied" in reason:
        return f"; put it into {STORAGE_VARIABLE}, PGPASSWORD or ~/.pgpass"
    if "refused" in reason or "could not translate host" in reason or "resolve" in reason:
        return "; is the server running, and are host and port right?"
    if f'database "{url.database}" does not exist' in reason:
        return f"; create it: createdb {url.database}"
    if "locked" in reason:
        return "; another program holds it: wait, or use PostgreSQL for many workers"
    if "disk" in reason and "full" in reason:
        return "; free some space and run again: every finished trial is kept"
    if "disk I/O error" in reason:  # what a full disk gives when not even SQLite's index fits
        return (
            f"; is the disk of {url.database} full, or failing? free some space and run again: "
            "every finished trial is kept"
        )
    if "not a database" in reason:
        return "; the file is damaged or something else; restore it or name another"
    if "unable to open" in reason or "readonly" in reason:
        return "; may this user write that file and its folder?"
    return ""
