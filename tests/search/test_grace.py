"""Ctrl-C ends the block at once, SIGTERM after its grace; what was before is so again."""

import os
import signal
import time

import pytest

from evomerge_optuna.search.grace import grace_period


def wait_for_an_interrupt() -> None:
    while True:
        time.sleep(0.01)


def test_sigterm_lets_the_block_finish() -> None:
    with grace_period(600) as has_come:
        assert not has_come()
        os.kill(os.getpid(), signal.SIGTERM)
        assert has_come()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_grace_the_block_is_interrupted(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), grace_period(0):
        os.kill(os.getpid(), number)
        wait_for_an_interrupt()


def test_the_block_is_interrupted_when_its_grace_is_over() -> None:
    with pytest.raises(KeyboardInterrupt), grace_period(0.05):
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for_an_interrupt()


def test_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with grace_period(1):
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
