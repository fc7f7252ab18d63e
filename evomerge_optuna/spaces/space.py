"""A search space: from an Optuna trial to a recipe."""

from abc import ABC, abstractmethod
from typing import ClassVar, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from evomerge_optuna.methods import Value
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import Choices, Dimension

Values = dict[str, Value]
"""Values of parameters, by name."""


class SearchSpace(ABC):
    """What a sampler may choose, and the recipe it becomes."""

    baseline_name: ClassVar[str]  # in tables
    fewer: ClassVar[str]  # how a spec gets fewer parameters

    @abstractmethod
    def ranges(self) -> dict[str, Dimension]:
        """Every parameter the sampler searches, by name, in a fixed order."""

    @abstractmethod
    def recipe(self, values: Values) -> Recipe:
        """The recipe of these parameter values."""

    @abstractmethod
    def baseline(self) -> Values:
        """The first trial's parameters: what is had without a search."""

    @abstractmethod
    def sources(self) -> dict[str, Values]:
        """Parameters of each source model on its own, by alias, as near as the ranges allow."""

    def alone(self, alias: str) -> Recipe | None:
        """The recipe of a source model as it is, if it is built as candidates are; else None."""
        return None

    def starts(self) -> dict[str, Values]:
        """Parameters that people try by hand, by name, those worth most first."""
        return {}

    def values(self, searched: Values) -> Values:
        """Every parameter that the recipe of these has, by name, those too that the spec fixes."""
        return searched

    @abstractmethod
    def values_of(self, parameters: Values, recipe: Recipe) -> Values | None:
        """Where the recipe of another study lies in this space.

        Args:
            parameters: the recipe's `values` in the space of that study.

        Returns:
            Parameters of this space, each moved into its range; None where the recipe does not lie
            in it.
        """

    def unsearched(self) -> dict[str, MergeRecipe]:
        """Merges of the source models by methods that have nothing to search, by name."""
        return {}

    def layers_of(self) -> tuple[str, ...]:
        """The models whose layers a recipe may have; none where every recipe has all models."""
        return ()

    def suggest(self, trial: optuna.Trial) -> Recipe:
        """The recipe of a trial; asks the trial for each parameter once."""
        return self.recipe({name: _suggested(trial, name, d) for name, d in self.ranges().items()})


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """What Optuna's samplers draw the parameters from, by name, in their order."""
    return {name: _distribution(dimension) for name, dimension in space.ranges().items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    low, high, log = dimension.low, dimension.high, dimension.log
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _suggested(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    if isinstance(dimension, Choices):
        # Optuna gives what somebody queued back as it is, as 1 for true.
        return dimension.clip(cast(Value, trial.suggest_categorical(name, dimension.values)))
    low, high, log = dimension.low, dimension.high, dimension.log
    if dimension.integer:
        return trial.suggest_int(name, int(low), int(high), log=log)
    return trial.suggest_float(name, low, high, log=log)
