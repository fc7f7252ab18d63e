"""What a process holds is let go by its death and by nothing else.

Covers store.advisory_locks, store.file_locks and store.proxy, too.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge_optuna.errors import StudyBusyError
from evomerge_optuna.store.lock import Lease, hold, new_worker
from evomerge_optuna.store.open import open_store
from tests.conftest import wait_until

HOLDER = """
import sys
from dataclasses import astuple
from evomerge_optuna.store.lock import hold, new_worker
from evomerge_optuna.store.open import open_store
store = open_store(sys.argv[1])
with hold(store.locks, "tiny"), store.locks.lease(new_worker()) as own:
    print(*astuple(own), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["sqlite", "postgres", "proxy of sqlite", "proxy of postgres"])
def url(request: pytest.FixtureRequest, database: Callable[[str], str]) -> str:
    return database(request.param)


def test_held_by_one_process_until_it_dies(url: str, home: Path) -> None:
    store = open_store(url)
    command = [sys.executable, "-c", HOLDER, url]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    worker, *starts = holder.stdout.readline().split()
    own = Lease(worker, *map(float, starts))

    os.kill(holder.pid, signal.SIGSTOP)  # as slow as can be, and alive
    assert store.locks.is_alive(own)
    busy = pytest.raises(StudyBusyError, match="another process has held study 'tiny'")
    with busy, hold(store.locks, "tiny", patience=0.2):
        pass
    with hold(store.locks, "another study"):
        pass

    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    for _ in range(2):
        with hold(store.locks, "tiny"):
            pass
        wait_until(lambda: not store.locks.is_alive(own))  # the server sees one end after another


def test_lease_ends_with_its_block(url: str, home: Path) -> None:
    store = open_store(url)
    with store.locks.lease(new_worker()) as own:
        assert store.locks.is_alive(own)
        assert not store.locks.is_alive(replace(own, worker="another"))
    assert not store.locks.is_alive(own)


def test_threads_that_wait_leave_connections_to_the_holder(
    database: Callable[[str], str], home: Path
) -> None:
    """A proxy has a thread for each worker that waits, and a pool of fifteen connections."""
    store = open_store(database("postgres"))

    def hold_and_look(_: int) -> None:
        with hold(store.locks, "tiny"):
            store.rdb.get_all_studies()

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(hold_and_look, range(40)))
