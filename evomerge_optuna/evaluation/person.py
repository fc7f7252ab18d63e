"""Asking a person: who scores a candidate says how, and tasks ask within that block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """What a person is asked about a candidate's pictures.

    Attributes:
        target: the metric, as `TASK.SCORER`.
        choices: what may be answered, and the score of each answer.
        sheet: a PNG file with all pictures.
    """

    target: str
    text: str
    choices: Mapping[str, float]
    sheet: bytes


Ask = Callable[[Question], float]  # waits for the score

_ask: ContextVar[Ask | None] = ContextVar("ask", default=None)


@contextmanager
def person(ask: Ask) -> Iterator[None]:
    """Within the block there is someone to ask."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def asked() -> Ask | None:
    """How a person is asked; None where nobody is there, as on dev and test."""
    return _ask.get()
