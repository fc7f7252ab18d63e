"""The merger of every recipe: each kind goes to the merger made for it."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from evomerge_optuna.merging.merged import Merged, MergeMerger
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    from evomerge_optuna.merging.stacked import StackedMerger


class EveryMerger:
    """Builds recipes of every kind, each by the merger made for it, which is made when needed.

    Args:
        spec: names the merger of merge recipes, the device and the memory limit.
        say: told once what is kept in memory.
    """

    # Imported where needed: mergekit and torch take seconds, and most commands merge nothing.

    def __init__(self, spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None) -> None:
        self._spec = spec
        self._say = say

    def merge(self, recipe: Recipe) -> Merged:
        """The recipe's model; it is valid until the next merge."""
        if isinstance(recipe, StackRecipe):
            return self._stacked.merge(recipe)
        return self._merged.merge(recipe)

    @cached_property
    def _stacked(self) -> "StackedMerger":
        from evomerge_optuna.merging.stacked import StackedMerger

        return StackedMerger(self._spec.device, self._make_merger)

    @cached_property
    def _merged(self) -> MergeMerger:
        return self._make_merger()

    def _make_merger(self) -> MergeMerger:
        if self._spec.merger == "checkpoint":
            from evomerge_optuna.merging.checkpoint import CheckpointMerger

            return CheckpointMerger(self._spec.device)
        from evomerge_optuna.merging.resident import ResidentMerger

        return ResidentMerger(self._spec.device, self._spec.memory_limit, self._say)
