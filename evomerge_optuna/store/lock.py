"""Locks that their holder's death lets go, of a study for a moment and of a worker for its life.

The operating system or the server ensures that, however the holder dies, and never takes a slow
holder for a dead one: there is no heartbeat that a busy interpreter could miss.
"""

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from evomerge_optuna.errors import StudyBusyError

PATIENCE = 60.0  # seconds; a study is held for milliseconds at a time
# Seconds that a worker has to take its lease again after what lent it was restarted.
GRACE = 60.0


@dataclass(frozen=True)
class Lease:
    """What says that a worker lives: a lock that it holds from its first to its last breath.

    `server_start` and `proxy_start` are the starts of the PostgreSQL server and of the proxy that
    lent it, in seconds; those that were started since have forgotten their locks.
    """

    worker: str
    server_start: float = 0.0
    proxy_start: float = 0.0


class Locks(Protocol):
    """Where locks are kept: beside a SQLite file, in PostgreSQL, behind a proxy."""

    def locked(self, key: str, patience: float) -> AbstractContextManager[bool]:
        """Locks the key within the block.

        Yields True once the key is locked, or False if it was not free within `patience` seconds.
        """

    def lease(self, worker: str) -> AbstractContextManager[Lease]:
        """Shows the worker alive within the block."""

    def is_alive(self, lease: Lease) -> bool:
        """Does the worker live? After a restart of what lent it, it does for a minute yet."""


@contextmanager
def hold(locks: Locks, name: str, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the study of this name for this process alone, for a moment.

    Args:
        patience: seconds to wait for another holder.

    Raises:
        StudyBusyError: another process holds it all that time.
    """
    with locks.locked(f"study {name}", patience) as free:
        if not free:
            raise StudyBusyError(
                f"another process has held study '{name}' for {patience:.0f} s; is it stopped? "
                "end it, then try again"
            )
        yield


def new_worker() -> str:
    """A name that no other worker has."""
    return uuid.uuid4().hex


def worker_key(worker: str) -> str:
    """The key that a worker's lease locks."""
    return f"worker {worker}"
