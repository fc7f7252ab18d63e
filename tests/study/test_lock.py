"""What a process holds is let go by its death and by nothing else."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge_optuna.errors import StudyBusyError
from evomerge_optuna.study.lock import Lease, hold, new_worker
from evomerge_optuna.study.storage import open_store
from tests.conftest import wait_until

HOLDER = """
import sys, time
from evomerge_optuna.study.lock import hold, new_worker
from evomerge_optuna.study.storage import open_store
store = open_store(sys.argv[1])
with hold(store.locks, "tiny"), store.locks.lease(new_worker()) as own:
    print(own.worker, own.server_start, flush=True)
    time.sleep(60)
"""


def test_held_by_one_process_until_it_dies(storage_url: str, home: Path) -> None:
    store = open_store(storage_url)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, storage_url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    worker, server_start = holder.stdout.readline().split()
    own = Lease(worker, float(server_start))

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


def test_lease_ends_with_its_block(storage_url: str, home: Path) -> None:
    store = open_store(storage_url)
    with store.locks.lease(new_worker()) as own:
        assert store.locks.is_alive(own)
        assert not store.locks.is_alive(replace(own, worker="another"))
    assert not store.locks.is_alive(own)
