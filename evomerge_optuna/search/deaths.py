"""Which deaths of workers are their trial's fault.

A trial that kills its worker (by the memory it takes, or a crash in a library) kills the next one,
too, at the same place. A worker that is stopped from outside dies anywhere. So a trial's first
death says nothing yet. Its repeats record how far they come, and a trial is given up once enough
workers in a row have died at the same place. Where they died while its score was being stored, it
is surely not what killed them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from math import ceil
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial

from evomerge_optuna.engines.base import Engine
from evomerge_optuna.study.schema import DIED_AT, PLACE, RESULT

_STEP = 1.05  # of the passes, between two records: each is a transaction
_NEAR = 0.1  # of the passes, within which two places are one: memory does not end at the same byte
_IN_ALL = 10  # times as many deaths as at one place, wherever they were


class Place(NamedTuple):
    """How far a trial came: a stage of it, and the passes of its model there.

    `merging`, or the split that was scored. Of a first death nothing is known: the stage is empty.
    """

    stage: str = ""
    passes: int = 0

    def is_near(self, other: "Place") -> bool:
        """May both be one place?"""
        if "" in (self.stage, other.stage):
            return True
        apart = abs(self.passes - other.passes)
        return self.stage == other.stage and apart <= _NEAR * max(self.passes, other.passes)


def begin(trial: optuna.Trial) -> None:
    """Records that a trial's model is being merged."""
    if DIED_AT in trial.user_attrs:
        trial.set_user_attr(PLACE, Place("merging"))


@contextmanager
def counted_passes(trial: optuna.Trial, engine: Engine, split: str) -> Iterator[None]:
    """Records within the block how many passes of the model its scoring has come to."""
    if DIED_AT not in trial.user_attrs:
        yield
        return
    trial.set_user_attr(PLACE, Place(split))
    with engine.counting(_recorder(trial, split)):
        yield


def _recorder(trial: optuna.Trial, split: str) -> Callable[[], None]:
    passes, due = 0, 1

    def record() -> None:
        nonlocal passes, due
        passes += 1
        if passes >= due:
            trial.set_user_attr(PLACE, Place(split, passes))
            due = max(passes + 1, ceil(_STEP * passes))

    return record


def deaths_of(trial: FrozenTrial) -> list[Place]:
    """Where workers died on a trial whose worker is dead, and on those that it repeats."""
    before = [Place(*place) for place in trial.user_attrs.get(DIED_AT, [])]
    had_begun = PLACE in trial.user_attrs or not before
    if RESULT in trial.user_attrs or not had_begun:
        return before
    return [*before, Place(*trial.user_attrs.get(PLACE, ()))]


def is_to_blame(died_at: Sequence[Place], max_retries: int) -> bool:
    """Is it the trial that these workers died of?"""
    last = died_at[-1] if died_at else Place()
    alike = len(list(takewhile(last.is_near, reversed(died_at))))
    return alike > max_retries or len(died_at) > _IN_ALL * (max_retries + 1)
