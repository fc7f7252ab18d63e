"""A search space: from an Optuna trial to a recipe."""

from typing import Protocol

import optuna

from evomerge_optuna.errors import UsageError
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.stack import StackSpace
from evomerge_optuna.spec import ParameterStudySpec, Range, StackStudySpec, StudySpec


class SearchSpace(Protocol):
    """What a sampler may choose, and the recipe it becomes."""

    @property
    def baseline_name(self) -> str:
        """What the baseline is called in tables."""
        ...

    def ranges(self) -> dict[str, Range]:
        """Every parameter the sampler searches, by name, in a fixed order."""
        ...

    def suggest(self, trial: optuna.Trial) -> Recipe:
        """The recipe of a trial; asks the trial for each parameter once."""
        ...

    def recipe(self, values: dict[str, float]) -> Recipe:
        """The recipe of these parameter values."""
        ...

    def baseline(self) -> dict[str, float]:
        """The first trial's parameters: what is had without a search."""
        ...


def make_space(spec: StudySpec, layers: dict[str, int]) -> SearchSpace:
    """The space of a spec whose models have so many layers, by their keys in the spec."""
    if isinstance(spec, StackStudySpec):
        depths = {alias: layers[f"models.{alias}"] for alias in spec.models}
        return StackSpace(spec, depths)
    if isinstance(spec, ParameterStudySpec):
        return ParameterSpace.of(spec, next(iter(layers.values())))
    raise UsageError(f"stage {spec.stage} has no search space")
