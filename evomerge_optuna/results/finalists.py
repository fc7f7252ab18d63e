"""A race among the best trials on search: dev problems go where they decide which is the best.

Sequential halving (Karnin et al. 2013): all are scored on the first quarter of dev, the better half
of them on the second, the better half of those on the rest. They are compared on the same problems,
and by all that is known of them, the search split too: given both, its score is as good evidence as
dev's, however the finalists were found, for their ranks depend on nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge_optuna.study.quarters import QUARTERS, Part


@dataclass(frozen=True)
class Finalist:
    """What is known of one, more is better: on search, and on the first quarters of dev."""

    search: Part
    dev: tuple[Part, ...]

    def gain(self, quarters: int) -> float:
        """The mean over search and these first quarters of dev; what is not finite is the worst."""
        parts = (self.search, *self.dev[:quarters])
        problems = sum(n for _, n in parts)
        found = sum(gain * n / problems for gain, n in parts)
        return found if math.isfinite(found) else -math.inf


@dataclass(frozen=True)
class Standing:
    """How far a race is.

    Attributes:
        lacking: places of the finalists that are still in it and not scored so far.
        quarters: of dev, on which they are to be scored by now.
        winner: the place of the best one, once nothing is lacking.
    """

    lacking: tuple[int, ...]
    quarters: int
    winner: int | None = None


def standing(finalists: Sequence[Finalist]) -> Standing:
    """How far the race of these is; of equals the first is better.

    Args:
        finalists: one or more, the best on search first.
    """
    running = list(range(len(finalists)))
    for quarters in _rungs(len(finalists)):
        lacking = tuple(i for i in running if len(finalists[i].dev) < quarters)
        if lacking:
            return Standing(lacking, quarters)
        running = sorted(sorted(running), key=lambda i: -finalists[i].gain(quarters))
        winner = running[0]
        running = running[: (len(running) + 1) // 2]
    return Standing((), QUARTERS, winner)


def _rungs(finalists: int) -> list[int]:
    """After how many quarters half of them are left behind; the last comparison is on all."""
    halvings = max(1, math.ceil(math.log2(finalists)))
    return [QUARTERS // 2**n for n in range(min(halvings, 3))][::-1]
