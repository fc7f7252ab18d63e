"""Stopping: Ctrl-C stops at once, SIGTERM lets the running trial finish first."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN = 1.0  # seconds


@contextmanager
def grace_period(seconds: float) -> Iterator[Callable[[], bool]]:
    """Gives the block some seconds after SIGTERM; then interrupts it, as Ctrl-C does at once.

    Yields:
        Whether a signal has come. The block is to begin nothing new then.
    """
    has_come = False

    def interrupt(*_: object) -> None:
        nonlocal has_come
        has_come = True
        # Until the block ends: one that is raised amid a destructor is lost.
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        raise KeyboardInterrupt

    def begin_to_stop(*_: object) -> None:
        nonlocal has_come
        if not seconds:
            interrupt()
        if not has_come:
            has_come = True
            signal.setitimer(signal.ITIMER_REAL, seconds)

    handlers = {
        signal.SIGINT: interrupt,
        signal.SIGTERM: begin_to_stop,
        signal.SIGALRM: interrupt,
    }
    previous = {number: signal.signal(number, handlers[number]) for number in handlers}
    hook, sys.unraisablehook = sys.unraisablehook, _all_but_interrupts
    try:
        yield lambda: has_come
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, handler)


def _all_but_interrupts(lost: "sys.UnraisableHookArgs") -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
