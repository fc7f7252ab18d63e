"""Processes that begin where their imports end: forked from one that has done them."""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.preloaded"])


def start(target: Callable[..., None], *arguments: Any) -> Any:
    """A process that ends with this one, and has its variables."""
    given = (dict(os.environ), target, *arguments)
    process = processes.Process(target=_run, args=given, daemon=True)
    process.start()
    return process


def _run(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


class Command:
    """`python -m evomerge_optuna` in such a process; what of it is used is as in a Popen."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, variables: dict[str, str]) -> None:
        pipes = [processes.Pipe(duplex=False) for _ in ("stdout", "stderr")]
        theirs = [writer for _, writer in pipes]
        given = ({**os.environ, **variables}, _run_command, arguments, str(folder), *theirs)
        self._process = processes.Process(target=_run, args=given)
        self._process.start()
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno())) for reader, _ in pipes)
        for end in chain(*pipes):
            end.close()
        self.pid = self._process.pid
        assert self.pid is not None

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def communicate(self) -> tuple[str, str]:
        """stdout and stderr to their ends, and waits for the process."""
        with self.stdout, self.stderr, ThreadPoolExecutor(1) as thread:
            err = thread.submit(self.stderr.read)
            said = self.stdout.read(), err.result()
        self._process.join()
        return said


def _run_command(arguments: tuple[str, ...], folder: str, out: Connection, err: Connection) -> None:
    for number, pipe in enumerate((out, err), start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    os.chdir(folder)
    sys.path[0] = folder  # as of `python -m`
    sys.argv[1:] = arguments
    try:
        runpy.run_module("evomerge_optuna", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
