"""A problem and what a model answered, as a person reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Stored = Mapping[str, Any]  # an outcome as it is stored, by its fields


@dataclass(frozen=True)
class Answered:
    """One problem of a task, the model's answer and the verdict on it.

    Attributes:
        answer: what the model wrote or chose; None where a task has a score alone.
        read: what the scorer found in it; None: nothing, or all of it.
        reference: the data's answer, if it has one.
        right: None where that is no matter of right and wrong.
        verdict: the same in a word, or the score.
    """

    prompt: str
    answer: str | None
    read: str | None
    reference: str | None
    right: bool | None
    verdict: str


def verdict_of(right: bool | None, score: float | None = None) -> str:
    """In a word; the score where it is no matter of right and wrong."""
    if right is None:
        return "-" if score is None else f"{score:.3g}"
    return "right" if right else "wrong"
