"""What the workers of test_workers do; a module of its own, for they import it each time."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch

from evomerge_optuna.search import objective
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.studies import open_study
from tests.conftest import wait_until
from tests.forked import processes

build_and_score = objective.build_and_score


def work(url: str, trials: int, say: Callable[[str], None] = lambda _: None) -> None:
    torch.set_num_threads(1)
    run_trials(open_study(open_store(url), "tiny"), trials, say=say)


def work_and_die(url: str, trials: int, calls: int = 0) -> None:
    """Is killed so many calls of a function after it has begun to build its first candidate."""

    def build_and_die(*given: Any) -> objective.Scored:
        left = count(calls, -1)
        sys.setprofile(lambda *_: next(left) or os.kill(os.getpid(), signal.SIGKILL))
        return build_and_score(*given)

    objective.build_and_score = build_and_die
    work(url, trials)


class Gate:
    """Workers that wait with each candidate until it is let through, and tell what they say."""

    def __init__(self) -> None:
        self._passes, self._said = processes.Semaphore(0), processes.SimpleQueue()

    def work(self, url: str, trials: int) -> None:
        def build_when_let(*given: Any) -> objective.Scored:
            self._passes.acquire()
            return build_and_score(*given)

        objective.build_and_score = build_when_let
        work(url, trials, lambda line: self._said.put((os.getpid(), line)))

    def let(self, trials: int) -> None:
        for _ in range(trials):
            self._passes.release()

    def wait_for(self, line: str, workers: Sequence[Any]) -> None:
        """Until each of the workers has said it."""
        missing = {worker.pid for worker in workers}

        def all_have() -> bool:
            while not self._said.empty():
                pid, said = self._said.get()
                if line in said:
                    missing.discard(pid)
            return not missing

        wait_until(all_have, lambda: all(worker.is_alive() for worker in workers))
