"""What the processes of test_processes do; a module of its own, for they import it each time."""

import os
import signal
import time
from pathlib import Path

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.search.processes import Say


def greet(number: int, say: Say) -> None:
    say(f"process {number}")


def sleep(number: int, say: Say, *, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    _for_ever()


def die_once(number: int, say: Say, *, folder: Path) -> None:
    if number == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    say("done")


def die(number: int, say: Say) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int, say: Say) -> None:
    if number == 0:
        raise EvomergeError("the disk is full")
    _for_ever()


def _for_ever() -> None:
    while True:
        time.sleep(60)


def nothing_new() -> int:
    return 0
