"""Signals as people and schedulers mean them: Ctrl-C at once, SIGTERM after what is running."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN = 1.0  # seconds


@contextmanager
def grace_period(seconds: float) -> Iterator[Callable[[], bool]]:
    """After SIGTERM the block has so many seconds; then it is interrupted as by Ctrl-C.

    Yields:
        Whether a signal has come. The block is to begin nothing new then.
    """
    told = False

    def interrupt(*_: object) -> None:
        nonlocal told
        told = True
        # Until the block ends: one that is raised amid a destructor is lost.
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        raise KeyboardInterrupt

    def begin_to_stop(*_: object) -> None:
        nonlocal told
        if not seconds:
            interrupt()
        if not told:
            told = True
            signal.setitimer(signal.ITIMER_REAL, seconds)

    handlers = {
        signal.SIGINT: interrupt,
        signal.SIGTERM: begin_to_stop,
        signal.SIGALRM: interrupt,
    }
    previous = {number: signal.signal(number, handlers[number]) for number in handlers}
    hook, sys.unraisablehook = sys.unraisablehook, _all_but_interrupts
    try:
        yield lambda: told
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, handler)


def _all_but_interrupts(lost: "sys.UnraisableHookArgs") -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
