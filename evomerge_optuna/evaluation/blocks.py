"""Blocks: a split in equal parts of a fixed random order, to be scored one after the other."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """One of `count` blocks, the first of which is number 0; together they are all problems.

    Their sizes differ by one at most, and the same seed gives the same blocks.
    """

    number: int
    count: int
    seed: int

    def of(self, problems: Sequence[T]) -> list[T]:
        """This block's share of the problems, in the order in which they are given."""
        order = random.Random(self.seed).sample(range(len(problems)), len(problems))
        return [problems[i] for i in sorted(order[self.number :: self.count])]


WHOLE = Block(number=0, count=1, seed=0)  # all problems, in the order of the data
