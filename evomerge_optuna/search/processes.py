"""Worker processes of this machine: started, replaced when killed, and stopped together."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Thread

from evomerge_optuna.errors import EvomergeError, Interrupted

Say = Callable[[str], None]
# Gets the number of its process and what says a line; picklable, as a partial of a function is.
Work = Callable[[int, Say], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TICK = 1.0  # seconds
_DEATHS = 5  # in a row, without any progress, that say that a new process will die, too


def run_processes(
    work: Work, count: int, progress: Callable[[], int], say: Say = lambda _: None
) -> None:
    """Runs `work` in `count` processes until it has returned in each.

    SIGTERM and SIGINT are passed on. A process that somebody else stops is let go; a
    killed one is replaced.

    Args:
        progress: called every second; a number that grows as long as the work gets on.
        say: called with each line that a process says.

    Raises:
        Interrupted: after SIGTERM or SIGINT.
        EvomergeError: what was raised in one of them; the others were stopped.
    """
    children: list[_Child] = []
    try:
        with _signals_passed_on(children) as told_to_stop:
            children += [_Child(work, number) for number in range(count)]
            _watch(children, progress, say, told_to_stop)
        if told_to_stop():
            raise Interrupted("stopped")
    finally:
        for child in children:
            child.process.terminate()
        for child in children:
            child.process.join()


def _watch(
    children: "list[_Child]",
    progress: Callable[[], int],
    say: Say,
    told_to_stop: Callable[[], bool],
) -> None:
    deaths, reached = 0, progress()
    said: set[str] = set()
    while children:
        wait([child.process.sentinel for child in children], _TICK)
        if (now := progress()) != reached:
            deaths, reached = 0, now
        for child in list(children):
            for line in child.lines():
                if line not in said:  # all say the same
                    said.add(line)
                    say(line)
            if child.process.exitcode is None:
                continue
            children.remove(child)
            if (failure := child.failure()) is not None:
                raise failure
            if child.was_killed() and not told_to_stop():
                deaths += 1
                if deaths > _DEATHS:
                    raise EvomergeError(
                        f"{deaths} workers were killed one after the other, the last one by "
                        f"{child.ended_by()} (out of memory?); take fewer of them with --workers"
                    )
                say(f"a worker was killed by {child.ended_by()}; another takes its place")
                children.append(child.again())


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a child."""

    message: str
    exit_code: int


class _Child:
    """A process and the pipe through which it speaks."""

    def __init__(self, work: Work, number: int) -> None:
        self._work, self._number = work, number
        self._failure: _Failure | None = None
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(work, number, theirs))
        resource_tracker.ensure_running()  # it unblocks signals when it starts
        # What comes before the child is ready waits until it is.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self.process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()

    def again(self) -> "_Child":
        return _Child(self._work, self._number)

    def lines(self) -> Iterator[str]:
        """What it has said since; an error is kept."""
        with suppress(EOFError, OSError):  # it was killed amid a line
            while self._pipe.poll():
                said = self._pipe.recv()
                if isinstance(said, _Failure):
                    self._failure = said
                else:
                    yield said

    def failure(self) -> EvomergeError | None:
        """What an ended process failed of."""
        if self._failure is not None:
            error = EvomergeError(self._failure.message)
            error.exit_code = self._failure.exit_code
            return error
        if (self.process.exitcode or 0) > 0:
            return EvomergeError(f"a worker ended with exit code {self.process.exitcode}")
        return None

    def was_killed(self) -> bool:
        return (self.process.exitcode or 0) < 0

    def ended_by(self) -> str:
        return signal.Signals(-(self.process.exitcode or 0)).name


def _run(work: Work, number: int, pipe: Connection) -> None:
    """The life of a child."""
    os.setpgrp()  # a terminal's Ctrl-C is for the parent, which passes it on
    try:
        for number_of_signal in _SIGNALS:
            signal.signal(number_of_signal, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        Thread(target=_stop_with_parent, daemon=True).start()
        work(number, pipe.send)
    except (KeyboardInterrupt, Interrupted):
        pass
    except EvomergeError as error:
        pipe.send(_Failure(str(error), error.exit_code))
        sys.exit(error.exit_code)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _signals_passed_on(children: list[_Child]) -> Iterator[Callable[[], bool]]:
    """Passes SIGTERM and SIGINT on; yields whether one has come."""
    has_come = False

    def pass_on(number: int, _: object) -> None:
        nonlocal has_come
        has_come = True
        for child in children:
            if child.process.pid is not None and child.process.is_alive():
                os.kill(child.process.pid, number)

    previous = {n: signal.signal(n, pass_on) for n in _SIGNALS}
    try:
        yield lambda: has_come
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
