"""What every scorer of pictures does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from evomerge_optuna.evaluation.problem import Row

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


@dataclass(frozen=True)
class Drawn:
    """A picture, RGB, and what it was drawn from: its prompt, in a row of the data."""

    image: "Image"
    prompt: str
    row: Row


class PictureScorer(ABC, Generic[T]):
    """Judges pictures, each by itself. What it needs is loaded with the first of them.

    Args:
        spec: the scorer's keys.
        key: its place in the spec, named in errors.
        device: where its models run: auto, cpu or cuda.
    """

    def __init__(self, spec: T, key: str, device: str) -> None:
        self.spec = spec
        self.key = key
        self.device = device

    def check(self) -> None:
        """Refuses what is not there, before anything large is read.

        Raises:
            SpecError: naming the key.
        """

    def fingerprint(self) -> str | None:
        """SHA-256 of the files that decide its scores; None where there are none.

        Raises:
            SpecError: they cannot be had.
        """
        return None

    @abstractmethod
    def scores(self, drawn: Sequence[Drawn]) -> list[float]:
        """One number for each picture.

        Raises:
            CandidateError: it cannot judge them.
            SpecError: it does not fit the pictures, or its code fails.
        """
