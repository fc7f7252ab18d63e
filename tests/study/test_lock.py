"""A study has one worker at a time, whatever becomes of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge_optuna.errors import StudyBusyError
from evomerge_optuna.study.lock import hold
from evomerge_optuna.study.storage import open_store

HOLDER = """
import sys, time
from evomerge_optuna.study.lock import hold
from evomerge_optuna.study.storage import open_store
with hold(open_store(sys.argv[1]), "tiny"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_held_by_one_process_until_it_dies(storage_url: str, home: Path) -> None:
    store = open_store(storage_url)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, storage_url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    busy = pytest.raises(StudyBusyError, match="is being run by another process")
    with busy, hold(store, "tiny"):
        pass
    with hold(store, "another study"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    for _ in range(2):
        with hold(store, "tiny"):
            pass
