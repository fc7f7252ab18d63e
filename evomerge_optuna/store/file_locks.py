"""Locks beside a SQLite file, which the operating system lets go with their holder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge_optuna.errors import StorageError
from evomerge_optuna.store.lock import PATIENCE, Lease, worker_key


class FileLocks:
    """A hidden file a lock; see `Locks`."""

    def __init__(self, database: Path) -> None:
        self._database = database

    @contextmanager
    def locked(self, key: str, patience: float) -> Iterator[bool]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.file_of(key), timeout=patience, poll_interval=0.005)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise StorageError(
                f"{self._database.parent}: cannot be written ({error.strerror}), and a lock beside "
                f"{self._database.name} is needed even to read it; have this user write there, or "
                "keep studies in PostgreSQL"
            ) from error
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def lease(self, worker: str) -> Iterator[Lease]:
        key = worker_key(worker)
        try:
            with self.locked(key, PATIENCE):
                yield Lease(worker)
        finally:
            self.file_of(key).unlink(missing_ok=True)

    def is_alive(self, lease: Lease) -> bool:
        key = worker_key(lease.worker)
        with self.locked(key, 0.0) as free:
            pass
        if free:
            self.file_of(key).unlink(missing_ok=True)
        return not free

    def file_of(self, key: str) -> Path:
        number = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self._database.with_name(f".{self._database.name}.{number}.lock")
