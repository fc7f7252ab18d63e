"""How fast a study goes, and how long what is left will take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest

from optuna.trial import FrozenTrial

LATEST = 20  # trials that it is taken from: a search may slow down, or get more workers


@dataclass(frozen=True)
class Pace:
    """What the latest finished trials took.

    Attributes:
        seconds: of one trial, on average.
        every: seconds of running for each of them, less than `seconds` where several run at once.
    """

    seconds: float
    every: float

    @property
    def at_once(self) -> int:
        """How many ran at a time, one or more."""
        return max(1, round(self.seconds / self.every)) if self.every > 0 else 1

    def left(self, trials: int) -> float:
        """Seconds that so many more trials take, if as many run at once."""
        return self.every * max(0, trials)


def pace_of(trials: Sequence[FrozenTrial]) -> Pace | None:
    """The pace of a study; None before a trial has finished.

    Time in which none was running does not count, as between two runs.
    """
    spans = [
        (trial.datetime_complete.timestamp(), trial.datetime_start.timestamp())
        for trial in trials
        if trial.datetime_start and trial.datetime_complete and trial.state.is_finished()
    ]
    ended = nlargest(LATEST + 1, spans)
    latest, before = ended[:LATEST], ended[LATEST:]
    if not latest:
        return None
    worked = 0.0
    until = before[0][0] if before else -math.inf  # from then on just the latest have ended
    for end, begin in sorted(latest, key=lambda span: span[1]):
        worked += max(0.0, end - max(begin, until))
        until = max(until, end)
    seconds = sum(end - begin for end, begin in latest) / len(latest)
    return Pace(seconds, worked / len(latest))
