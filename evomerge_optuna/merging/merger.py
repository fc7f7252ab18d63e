"""The merger of every recipe: each kind goes to the merger made for it."""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from evomerge_optuna.merging.merged import Merged, MergeMerger
from evomerge_optuna.models.loading import torch_device
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    from evomerge_optuna.families.vision_language.in_memory import HostInMemory
    from evomerge_optuna.merging.stacked import StackedMerger


class EveryMerger:
    """Builds recipes of every kind, each by the merger made for it, which is made when needed.

    Args:
        spec: names the merger of merge recipes, the device, the memory limit, and the dtype in
            which models are to run; their digest is that of the recipe's own.
        say: told once what is kept in memory.
    """

    # Imported where needed: mergekit and torch take seconds, and most commands merge nothing.

    def __init__(self, spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None) -> None:
        self._spec = spec
        self._say = say
        self._host: HostInMemory | None = None

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        """Reads what merges of such recipes need; see `Merger`."""
        if isinstance(recipe, StackRecipe):
            self._stacked.load(recipe, layers_of)
        else:
            self._merged.load(recipe)
        if recipe.vision is not None:
            self._host_of(recipe.vision)

    def merge(self, recipe: Recipe) -> Merged:
        """The recipe's model in the spec's dtype; it is valid until the next merge."""
        if self._host is not None and self._spec.merger == "checkpoint":
            self._host.release()  # else the last candidate is in memory while this one is loaded
        merger = self._stacked if isinstance(recipe, StackRecipe) else self._merged
        merged = merger.merge(recipe)  # type: ignore[arg-type]
        if recipe.vision is not None:
            merged = self._completed(recipe.vision, merged)
        if self._spec.dtype is None:
            return merged
        from evomerge_optuna.models.loading import in_dtype

        return replace(merged, model=in_dtype(merged.model, self._spec.dtype))

    def _completed(self, name: str, merged: Merged) -> Merged:
        """The whole model of this name with a merged model as its merged part."""
        from evomerge_optuna.merging.plan import mergekit_errors

        host = self._host_of(name)
        with mergekit_errors():
            host.complete(merged.model, merged.tokenizer)
        digest = host.digest(merged.digest)
        return Merged(host.model, host.processor.tokenizer, digest, host.processor)

    def _host_of(self, name: str) -> "HostInMemory":
        from evomerge_optuna.families.vision_language.in_memory import HostInMemory

        if self._host is None or self._host.name != name:
            self._host = HostInMemory(name, torch_device(self._spec.device))
        return self._host

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
