"""Locks that their holder's death lets go: files beside SQLite, advisory locks on PostgreSQL.

The operating system or the server sees to that, however the holder dies, and never takes a slow
holder for a dead one: there is no heartbeat that a busy interpreter could miss.
"""

import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, Connection

from evomerge_optuna.errors import StudyBusyError
from evomerge_optuna.study.storage import Store

WORKER = "worker"  # trial attribute: the lease of the worker that runs it

_PATIENCE = 60.0  # seconds; a study is held for milliseconds at a time
_PULSE = 5.0  # seconds between two looks at the connection that holds a lease
# After a restart of the server a living worker has so many seconds to take its lease again.
_GRACE = 60


@contextmanager
def hold(store: Store, name: str, patience: float = _PATIENCE) -> Iterator[None]:
    """Holds the study of this name for this process alone, for a moment.

    Args:
        patience: seconds to wait for another holder.

    Raises:
        StudyBusyError: another process holds it all that time.
    """
    locked = _file_lock if store.url.drivername == "sqlite" else _advisory_lock
    with locked(store, f"study {name}", patience) as free:
        if not free:
            raise StudyBusyError(
                f"another process has held study '{name}' in {store} for {patience:.0f} s; "
                "is it stopped? end it, then try again"
            )
        yield


@dataclass(frozen=True)
class Lease:
    """What says that a worker lives: a lock that it holds from its first to its last breath.

    `server_start` is the start of the PostgreSQL server that lent it, in seconds; a server that was
    started since has forgotten its locks.
    """

    worker: str
    server_start: float = 0.0


@contextmanager
def lease(store: Store) -> Iterator[Lease]:
    """A lease for this process, held until the block ends."""
    worker = uuid.uuid4().hex
    if store.url.drivername == "sqlite":
        with _file_lock(store, _key_of(worker), 0.0):
            yield Lease(worker)
        lock_file(store.url, _key_of(worker)).unlink(missing_ok=True)
        return
    keeper = _Keeper(store, _key_of(worker))
    try:
        yield Lease(worker, _server_start(store))
    finally:
        keeper.stop()


def lease_of(trial: FrozenTrial) -> Lease | None:
    """The lease of the worker that took a trial; None where it was stopped before it signed."""
    signed = trial.user_attrs.get(WORKER)
    return None if signed is None else Lease(**signed)


def is_alive(store: Store, lease: Lease) -> bool:
    """Does the worker with this lease live? After a server's restart it does for a minute yet."""
    key = _key_of(lease.worker)
    if store.url.drivername == "sqlite":
        with _file_lock(store, key, 0.0) as free:
            pass
        if free:
            lock_file(store.url, key).unlink(missing_ok=True)
        return not free
    with _advisory_lock(store, key, 0.0) as free:
        return not free or _has_just_restarted(store, lease)


def lock_file(url: URL, key: str) -> Path:
    """The lock's file beside a SQLite database."""
    database = Path(str(url.database)).absolute()
    return database.with_name(f".{database.name}.{_number(key):016x}.lock")


@contextmanager
def _file_lock(store: Store, key: str, patience: float) -> Iterator[bool]:
    """Yields whether it was free or got free in time."""
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file(store.url, key), timeout=patience, poll_interval=0.005)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def _advisory_lock(store: Store, key: str, patience: float) -> Iterator[bool]:
    """Yields whether it was free or got free in time; held by a transaction."""
    number = {"key": _number(key)}
    with store.rdb.engine.connect() as connection:
        if patience:
            _wait_at_most(connection, patience)
            free = _acquired(connection, "SELECT pg_advisory_xact_lock(:key)", number)
        else:
            found = connection.execute(
                sqlalchemy.text("SELECT pg_try_advisory_xact_lock(:key)"), number
            )
            free = bool(found.scalar())
        yield free
        with suppress(sqlalchemy.exc.SQLAlchemyError):  # a lost connection has let go already
            connection.rollback()


def _wait_at_most(connection: Connection, seconds: float) -> None:
    connection.execute(
        sqlalchemy.text("SELECT set_config('lock_timeout', :patience, true)"),
        {"patience": f"{seconds * 1000:.0f}ms"},
    )


def _acquired(connection: Connection, statement: str, number: dict[str, int]) -> bool:
    try:
        connection.execute(sqlalchemy.text(statement), number)
    except sqlalchemy.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        return False
    return True


class _Keeper:
    """Holds an advisory lock on a connection of its own, and takes it again when that is lost."""

    def __init__(self, store: Store, key: str) -> None:
        self._engine = store.rdb.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._number = {"key": _number(key)}
        self._stopped = threading.Event()
        self._connection = self._take()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(_PULSE)
        with suppress(sqlalchemy.exc.SQLAlchemyError):
            self._connection.close()

    def _take(self) -> Connection:
        connection = self._engine.connect()
        connection.detach()  # never back into the pool, where the lock would live on
        # The server looks whether a silent holder still lives: a host can vanish without goodbye.
        connection.execute(
            sqlalchemy.text(
                "SELECT set_config('tcp_keepalives_idle', '30', false),"
                " set_config('tcp_keepalives_interval', '10', false),"
                " set_config('tcp_keepalives_count', '3', false)"
            )
        )
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), self._number)
        return connection

    def _keep(self) -> None:
        while not self._stopped.wait(_PULSE):
            try:
                self._connection.execute(sqlalchemy.text("SELECT 1"))
            except sqlalchemy.exc.SQLAlchemyError:
                with suppress(sqlalchemy.exc.SQLAlchemyError):
                    self._connection.close()
                with suppress(sqlalchemy.exc.SQLAlchemyError):  # then at the next pulse
                    self._connection = self._take()


def _server_start(store: Store) -> float:
    statement = "SELECT extract(epoch FROM pg_postmaster_start_time())"
    with store.rdb.engine.connect() as connection:
        return float(connection.exec_driver_sql(statement).scalar_one())


def _has_just_restarted(store: Store, lease: Lease) -> bool:
    """Was the server started after it lent this, and a short time ago by its own clock?"""
    statement = (
        "SELECT extract(epoch FROM pg_postmaster_start_time()),"
        " extract(epoch FROM now() - pg_postmaster_start_time())"
    )
    with store.rdb.engine.connect() as connection:
        start, age = connection.exec_driver_sql(statement).one()
    return float(start) != lease.server_start and float(age) < _GRACE


def _key_of(worker: str) -> str:
    return f"worker {worker}"


def _number(key: str) -> int:
    """63 bits of a hash: an advisory lock is named by a signed 64-bit number."""
    return int.from_bytes(hashlib.sha256(f"evomerge {key}".encode()).digest()[:8]) >> 1
