"""The merges that people try by hand, with which a search in parameter space begins.

All source models at 0.5, all at 1, every pair at 1, each alone at 1; density 0.75, and all else in
the middle of what is searched. See benchmarks/README.md for what they are worth.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

from evomerge_optuna.methods import Value
from evomerge_optuna.spaces.places import OF_THE_MERGE, Place
from evomerge_optuna.spec import Choices

_DENSITY = 0.75


@dataclass(frozen=True)
class ByHand:
    """A merge of some source models, all at the same weight."""

    name: str
    aliases: Collection[str]
    level: float

    def value_at(self, place: Place, uniform: Value) -> Value:
        """The value of a parameter, moved into its range.

        Args:
            uniform: what it is in the uniform merge.
        """
        parameter, dimension = place.parameter, place.dimension
        if parameter.alone is not None:
            full, none = parameter.alone
            takes_part = place.owner in (OF_THE_MERGE, *self.aliases)
            return dimension.clip(self.level * full if takes_part else none)
        if isinstance(dimension, Choices):
            return dimension.clip(uniform)
        if parameter.name == "density":
            return dimension.clip(_DENSITY)
        if dimension.log:
            return dimension.clip(math.sqrt(dimension.low * dimension.high))
        return dimension.clip((dimension.low + dimension.high) / 2)


def merges_by_hand(aliases: Collection[str]) -> Iterator[ByHand]:
    """Those of these source models, most of them first."""
    yield ByHand("all at 0.5", aliases, 0.5)
    yield ByHand("all at 1", aliases, 1.0)
    for count in (2, 1):
        for some in combinations(aliases, count):
            yield ByHand(f"{' + '.join(some)} at 1", some, 1.0)
