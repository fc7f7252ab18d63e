"""Processes are started, replaced, told to stop, and outlive nobody."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import psutil
import pytest

from evomerge_optuna.errors import EvomergeError, Interrupted
from evomerge_optuna.search.processes import run_processes
from tests.conftest import wait_until
from tests.study.work import die, die_once, fail, greet, nothing_new, sleep


def test_all_run_to_their_end() -> None:
    said: list[str] = []
    run_processes(greet, 3, nothing_new, said.append)
    assert sorted(said) == ["process 0", "process 1", "process 2"]


def test_a_killed_one_is_replaced(tmp_path: Path) -> None:
    said: list[str] = []
    run_processes(partial(die_once, folder=tmp_path), 2, nothing_new, said.append)
    assert sorted(said) == ["a worker was killed by SIGKILL; another takes its place", "done"]


def test_not_for_ever() -> None:
    with pytest.raises(EvomergeError, match=r"6 workers were killed .*SIGKILL"):
        run_processes(die, 2, nothing_new)


def test_the_failure_of_one_stops_all() -> None:
    with pytest.raises(EvomergeError, match="the disk is full"):
        run_processes(fail, 2, nothing_new)  # the other one would never end


def pids(folder: Path) -> list[int]:
    return [int(file.name) for file in folder.iterdir()]


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop(tmp_path: Path, number: int) -> None:
    def tell() -> None:
        wait_until(lambda: len(pids(tmp_path)) == 2)
        os.kill(os.getpid(), number)

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(Interrupted):
        run_processes(partial(sleep, folder=tmp_path), 2, nothing_new)
    assert all(map(is_gone, pids(tmp_path)))


PARENT = """
import sys
from functools import partial
from pathlib import Path
from evomerge_optuna.search.processes import run_processes
from tests.study.work import nothing_new, sleep
if __name__ == "__main__":
    run_processes(partial(sleep, folder=Path(sys.argv[1])), 2, nothing_new)
"""


def test_none_outlives_the_parent(tmp_path: Path) -> None:
    script, folder = tmp_path / "parent.py", tmp_path / "pids"
    script.write_text(PARENT)
    folder.mkdir()
    root = Path(__file__).parent.parent.parent
    parent = subprocess.Popen(
        [sys.executable, script, folder], env={**os.environ, "PYTHONPATH": str(root)}
    )
    wait_until(lambda: len(pids(folder)) == 2, lambda: parent.poll() is None)
    parent.kill()
    parent.wait()
    wait_until(lambda: all(map(is_gone, pids(folder))))
