"""PostgreSQL's advisory locks, which the server lets go with the connection of their holder."""

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy
from sqlalchemy.engine import Connection, Engine

from evomerge_optuna.store.lock import GRACE, Lease, worker_key

_PULSE = 5.0  # seconds between two looks at the connection that holds the leases


class AdvisoryLocks:
    """Locks of transactions for a moment, of one session for the leases; see `Locks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keeper = _Keeper(engine)
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def locked(self, key: str, patience: float) -> Iterator[bool]:
        give_up = time.monotonic() + patience
        # Of the threads of a proxy one waits with a connection; else none is left to the holder.
        turn = self._turns[key] if patience else threading.Lock()
        if not turn.acquire(timeout=patience):
            yield False
            return
        try:
            with self._engine.connect() as connection:
                yield _acquired(connection, key, max(0.0, give_up - time.monotonic()))
                connection.exec_driver_sql("SELECT 1")  # a lost connection has let go too early
                connection.rollback()
        finally:
            turn.release()

    @contextmanager
    def lease(self, worker: str) -> Iterator[Lease]:
        key = worker_key(worker)
        self._keeper.take(key)
        try:
            yield Lease(worker, self._server_start())
        finally:
            self._keeper.let_go(key)

    def is_alive(self, lease: Lease) -> bool:
        with self.locked(worker_key(lease.worker), 0.0) as free:
            return not free or self._has_just_restarted(lease)

    def _server_start(self) -> float:
        statement = "SELECT extract(epoch FROM pg_postmaster_start_time())"
        with self._engine.connect() as connection:
            return float(connection.exec_driver_sql(statement).scalar_one())

    def _has_just_restarted(self, lease: Lease) -> bool:
        """Was the server started after it lent this, and a short time ago by its own clock?"""
        statement = (
            "SELECT extract(epoch FROM pg_postmaster_start_time()),"
            " extract(epoch FROM now() - pg_postmaster_start_time())"
        )
        with self._engine.connect() as connection:
            start, age = connection.exec_driver_sql(statement).one()
        return float(start) != lease.server_start and float(age) < GRACE


class _Keeper:
    """Holds leases on a connection of its own, and takes them again when that is lost."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._keys: Counter[str] = Counter()  # a worker that lost its proxy may take its own twice
        self._turn = threading.Lock()
        self._connection: Connection | None = None
        self._stopped = threading.Event()

    def take(self, key: str) -> None:
        with self._turn:
            if self._connection is None:
                self._connection = self._connect()
                self._stopped = threading.Event()
                threading.Thread(target=self._keep, args=(self._stopped,), daemon=True).start()
            _execute(self._connection, "SELECT pg_advisory_lock(:key)", key)
            self._keys[key] += 1

    def let_go(self, key: str) -> None:
        with self._turn, suppress(sqlalchemy.exc.SQLAlchemyError):
            assert self._connection is not None
            self._keys -= Counter([key])
            if self._keys:
                _execute(self._connection, "SELECT pg_advisory_unlock(:key)", key)
                return
            connection, self._connection = self._connection, None
            self._stopped.set()
            connection.close()

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        connection.detach()  # never back into the pool, where the locks would live on
        # The server looks whether a silent holder still lives: a host can vanish without goodbye.
        connection.exec_driver_sql(
            "SELECT set_config('tcp_keepalives_idle', '30', false),"
            " set_config('tcp_keepalives_interval', '10', false),"
            " set_config('tcp_keepalives_count', '3', false)"
        )
        return connection

    def _keep(self, stopped: threading.Event) -> None:
        while not stopped.wait(_PULSE):
            with self._turn:
                if stopped.is_set():
                    return
                try:
                    assert self._connection is not None
                    self._connection.exec_driver_sql("SELECT 1")
                except sqlalchemy.exc.SQLAlchemyError:
                    with suppress(sqlalchemy.exc.SQLAlchemyError):  # then at the next pulse
                        self._take_again()

    def _take_again(self) -> None:
        assert self._connection is not None
        with suppress(sqlalchemy.exc.SQLAlchemyError):
            self._connection.close()
        self._connection = self._connect()
        for key in self._keys.elements():
            _execute(self._connection, "SELECT pg_advisory_lock(:key)", key)


def _acquired(connection: Connection, key: str, patience: float) -> bool:
    """Takes a lock of the connection's transaction."""
    if not patience:
        return bool(_execute(connection, "SELECT pg_try_advisory_xact_lock(:key)", key))
    connection.execute(
        sqlalchemy.text("SELECT set_config('lock_timeout', :patience, true)"),
        {"patience": f"{patience * 1000:.0f}ms"},
    )
    try:
        _execute(connection, "SELECT pg_advisory_xact_lock(:key)", key)
    except sqlalchemy.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        return False
    return True


def _execute(connection: Connection, statement: str, key: str) -> object:
    """A function of PostgreSQL on a key, which it knows by 63 bits of a hash."""
    number = int.from_bytes(hashlib.sha256(f"evomerge {key}".encode()).digest()[:8]) >> 1
    return connection.execute(sqlalchemy.text(statement), {"key": number}).scalar()
