"""A search space: from an Optuna trial to a recipe."""

from abc import ABC, abstractmethod
from typing import ClassVar

import optuna

from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import Range


class SearchSpace(ABC):
    """What a sampler may choose, and the recipe it becomes."""

    baseline_name: ClassVar[str]  # in tables
    fewer: ClassVar[str]  # how a spec gets fewer parameters

    @abstractmethod
    def ranges(self) -> dict[str, Range]:
        """Every parameter the sampler searches, by name, in a fixed order."""

    @abstractmethod
    def recipe(self, values: dict[str, float]) -> Recipe:
        """The recipe of these parameter values."""

    @abstractmethod
    def baseline(self) -> dict[str, float]:
        """The first trial's parameters: what is had without a search."""

    @abstractmethod
    def sources(self) -> dict[str, dict[str, float]]:
        """Parameters of each source model on its own, by alias, as near as the ranges allow."""

    @abstractmethod
    def values_of(self, parameters: dict[str, float], recipe: Recipe) -> dict[str, float] | None:
        """Where the recipe of another study lies in this space.

        Args:
            parameters: that study's parameters of the recipe.

        Returns:
            Parameters of this space, each moved into its range; None where the recipe does not lie
            in it.
        """

    def layers_of(self) -> tuple[str, ...]:
        """The models whose layers a recipe may have; none where every recipe has all models."""
        return ()

    def suggest(self, trial: optuna.Trial) -> Recipe:
        """The recipe of a trial; asks the trial for each parameter once."""
        values = {
            name: trial.suggest_float(name, found.low, found.high)
            for name, found in self.ranges().items()
        }
        return self.recipe(values)
