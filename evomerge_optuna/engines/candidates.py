"""Candidates of the transformers engine: each kind of recipe goes to the merger made for it."""

from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING

from evomerge_optuna.devices import torch_device
from evomerge_optuna.engines.base import Candidate
from evomerge_optuna.engines.transformers import TransformersEngine
from evomerge_optuna.families import family_of_host
from evomerge_optuna.families.base import Host
from evomerge_optuna.merging.merged import Merged, ModelMaker
from evomerge_optuna.models.loading import in_dtype
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.recipe import Recipe, WholeRecipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge_optuna.merging.adapters.placed import AdapterOnBase
    from evomerge_optuna.merging.stacked import StackedModels


class Builder:
    """Builds candidates; see `CandidateBuilder`. Each merger is made when it is needed.

    Args:
        spec: names the merger of merge recipes, the device, the batch size, the memory limit, and
            the dtype in which models run; their digest is that of the recipe's own dtype.
        say: is given a line about what is kept in memory, once.
    """

    # Imported where needed: mergekit takes seconds, and a stack may need none of it.

    def __init__(self, spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None) -> None:
        self._spec = spec
        self._say = say
        self._host: Host | None = None

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        if isinstance(recipe, AdapterRecipe):
            self._adapted.load(recipe)
        elif isinstance(recipe, StackRecipe):
            self._stacked.load(recipe, layers_of)
        else:
            self._merged.load(recipe)
        if recipe.host is not None:
            self._host_of(recipe.host)

    def build(self, recipe: Recipe) -> Candidate:
        if isinstance(recipe, AdapterRecipe):
            placed = self._adapted.merge(recipe)
            reader = Reader(placed.tokenizer, positions(placed.model.config))
            return self._candidate(placed.model, reader, lambda: placed.digest)
        if self._host is not None and self._spec.merger == "checkpoint":
            self._host.release()  # else the last candidate is in memory while this one is loaded
        merged = self._merge(recipe)
        if recipe.host is None:
            reader = Reader(merged.tokenizer, positions(merged.model.config))
            return self._candidate(self._running(merged.model), reader, lambda: merged.digest)
        host = self._completed(recipe.host, merged)
        model = self._running(host.model)
        return self._candidate(model, host.reader, lambda: host.digest(merged.digest))

    def _candidate(
        self, model: "PreTrainedModel", reader: Reader, take_digest: Callable[[], str]
    ) -> Candidate:
        return Candidate(TransformersEngine(model, reader, self._spec.batch_size), take_digest)

    def _running(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model in the dtype in which it runs."""
        return model if self._spec.dtype is None else in_dtype(model, self._spec.dtype)

    def _merge(self, recipe: WholeRecipe) -> Merged:
        if isinstance(recipe, StackRecipe):
            return self._stacked.merge(recipe)
        return self._merged.merge(recipe)

    def _completed(self, name: str, merged: Merged) -> Host:
        """The host of this name with a merged model as its merged part."""
        from evomerge_optuna.merging.plan import mergekit_errors

        host = self._host_of(name)
        with mergekit_errors():
            host.complete(merged.model, merged.tokenizer)
        return host

    def _host_of(self, name: str) -> Host:
        if self._host is None or self._host.name != name:
            family, device = family_of_host(name), torch_device(self._spec.device)
            self._host = family.host(name, device)
        return self._host

    @cached_property
    def _adapted(self) -> "AdapterOnBase":
        from evomerge_optuna.merging.adapters.placed import AdapterOnBase

        return AdapterOnBase(self._spec.device, self._spec.dtype)

    @cached_property
    def _stacked(self) -> "StackedModels":
        from evomerge_optuna.merging.stack_sources import StackSources
        from evomerge_optuna.merging.stacked import StackedModels

        spec = self._spec
        sources = StackSources(spec.device, self._model_maker, spec.memory_limit, self._say)
        return StackedModels(sources)

    @cached_property
    def _merged(self) -> ModelMaker:
        return self._model_maker()

    def _model_maker(self) -> ModelMaker:
        if self._spec.merger == "checkpoint":
            from evomerge_optuna.merging.checkpoint import ModelFromFiles

            return ModelFromFiles(self._spec.device)
        from evomerge_optuna.merging.in_place import ModelInPlace
        from evomerge_optuna.merging.resident import ResidentMerger

        merger = ResidentMerger(self._spec.device, self._spec.memory_limit, self._say)
        return ModelInPlace(merger)
