"""SIGTERM as schedulers mean it: finish what is running, but not for long."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def grace_period(seconds: float) -> Iterator[Callable[[], bool]]:
    """After SIGTERM the block has so many seconds; then it is interrupted as by Ctrl-C.

    Yields:
        Whether SIGTERM has come. The block is to begin nothing new then.
    """
    told = False

    def begin_to_stop(*_: Any) -> None:
        nonlocal told
        told = True
        if seconds:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        else:
            raise KeyboardInterrupt

    handlers = {signal.SIGTERM: begin_to_stop, signal.SIGALRM: signal.default_int_handler}
    previous = {number: signal.signal(number, handlers[number]) for number in handlers}
    try:
        yield lambda: told
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
