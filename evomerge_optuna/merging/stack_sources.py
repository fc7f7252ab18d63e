"""The models whose layers a stack has: loaded once, merges among them made when they change."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from evomerge_optuna.families import merged_folder
from evomerge_optuna.merging.merged import Merged, ModelMaker
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.ends import with_united_ends
from evomerge_optuna.models.loading import in_dtype, load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe

if TYPE_CHECKING:
    from transformers import GenerationConfig


class StackSources:
    """Keeps the models that stacks are made of.

    Args:
        device: as in a spec, "auto" or "cuda:1".
        model_maker: gives what makes the merges among the models; each has its own, which keeps
            the merge until another recipe takes its name.
    """

    def __init__(self, device: str, model_maker: Callable[[], ModelMaker]) -> None:
        self._device = device
        self._model_maker = model_maker
        self._loaded: dict[str, Merged] = {}
        self._makers: dict[str, ModelMaker] = {}
        self._merged: dict[str, tuple[MergeRecipe, Merged]] = {}

    def load(self, recipe: StackRecipe, layers_of: Collection[str] = ()) -> None:
        """Reads the recipe's models, and the models of these names.

        Raises:
            CandidateError, NotFiniteError, OSError: as `of`.
        """
        for name in dict.fromkeys([*recipe.models(), *layers_of]):
            if name in recipe.merges:
                self._maker_of(name).load(recipe.merges[name])
            else:
                self._model(name, recipe)

    def of(self, recipe: StackRecipe) -> dict[str, Merged]:
        """The recipe's models by name.

        Raises:
            CandidateError: one of its merges cannot be built.
            NotFiniteError: a model has NaN or infinite weights.
            OSError: a model's file cannot be read.
        """
        return {name: self._model(name, recipe) for name in recipe.models()}

    def _model(self, name: str, recipe: StackRecipe) -> Merged:
        if name in recipe.merges:
            return self._merge_named(name, recipe.merges[name])
        if name not in self._loaded:
            self._loaded[name] = load_source(name, recipe.dtype, self._device)
        return self._loaded[name]

    def _merge_named(self, name: str, wanted: MergeRecipe) -> Merged:
        if name not in self._merged or self._merged[name][0] != wanted:
            self._merged.pop(name, None)  # before the next one needs its memory
            self._merged[name] = (wanted, self._maker_of(name).merge(wanted))
        return self._merged[name][1]

    def _maker_of(self, name: str) -> ModelMaker:
        if name not in self._makers:
            self._makers[name] = self._model_maker()
        return self._makers[name]


def load_source(name: str, dtype: str | None, device: str) -> Merged:
    """A model's text part as it is, with the SHA-256 of its tensors as they are stored.

    Args:
        dtype: in which it is to run; None: its own.

    Raises:
        NotFiniteError: it has NaN or infinite weights.
        OSError: a file cannot be read.
    """
    model, tokenizer = load_model(merged_folder(name), device)
    digest = digest_tensors({n: p.detach() for n, p in model.named_parameters()})
    # Not model.to, by which rotary frequencies would be rounded, too.
    return Merged(in_dtype(model, dtype) if dtype else model, tokenizer, digest)


def stack_digest(recipe: StackRecipe, sources: Mapping[str, Merged]) -> str:
    """SHA-256 over the recipe and the digests of its models, in their order of appearance."""
    whole = hashlib.sha256(recipe.canonical().encode())
    for name in recipe.models():
        whole.update(sources[name].digest.encode())
    return whole.hexdigest()


def stack_ends(recipe: StackRecipe, sources: Mapping[str, Merged]) -> "GenerationConfig":
    """The stack's generation config: that of its embeddings' model with the ends of all."""
    own = sources[recipe.embeddings]
    others = [(merged.model, merged.tokenizer) for merged in sources.values()]
    return with_united_ends(own.model, own.tokenizer, others)
