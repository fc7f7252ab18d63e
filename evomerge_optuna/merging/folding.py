"""Folding: a stack with its scales as an ordinary checkpoint, without any scale left.

With h_t = layer_t(w_t h_{t-1}) and c_t = w_1 ... w_t, the stream g_t = h_t / c_t passes through the
same layers unscaled when all that layer t adds to it is divided by c_t: a norm's output does not
depend on a positive factor of its input (but for the norm's epsilon), and changes its sign with it.
So the outputs of attention and MLP are multiplied by 1 / c_t, and for c_t < 0 the weights of the
norms that read the stream change their sign, those of the final norm with the last c.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate
from operator import mul
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from evomerge_optuna.families import merged_folder
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.plan import mergekit_errors, plan_merge, structure
from evomerge_optuna.merging.stack_sources import StackSources, stack_digest, stack_ends
from evomerge_optuna.merging.stacked import stacked_config
from evomerge_optuna.models.architectures import StackNames, stack_names
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.recipes.stack import StackRecipe


class StackMerger:
    """Gives stacks as streams of folded tensors, of their models' own architecture."""

    def __init__(self, sources: StackSources) -> None:
        self._sources = sources

    def load(self, recipe: StackRecipe, layers_of: Collection[str] = ()) -> None:
        """Reads the recipe's models, and the models of these names; see `StackSources.load`."""
        self._sources.load(recipe, layers_of)

    def stream(self, recipe: StackRecipe) -> "FoldedStack":
        """The recipe's model.

        Raises:
            CandidateError, NotFiniteError, OSError: see `StackSources.of`.
        """
        return FoldedStack(recipe, self._sources.of(recipe))


class FoldedStack:
    """A stack on its way, folded; see `Stream`. Its digest is that of the stack in memory."""

    def __init__(self, recipe: StackRecipe, sources: Mapping[str, Merged]) -> None:
        path = [(step.model, step.layer) for step in recipe.steps]
        merges = {name: structure(merge) for name, merge in recipe.merges.items()}
        self.structure = json.dumps([recipe.embeddings, path, recipe.head, recipe.dtype, merges])
        self._recipe = recipe
        self._sources = sources
        self._models = {name: merged.model for name, merged in sources.items()}

    def __iter__(self) -> Iterator[NamedTensor]:
        own = self._recipe.embeddings
        names = stack_names(self._models[own].config.model_type, own)
        return folded_tensors(self._recipe, self._models, names)

    def digest(self) -> str:
        return stack_digest(self._recipe, self._sources)

    def write_files_beside_weights(self, folder: Path) -> None:
        recipe, own = self._recipe, self._recipe.embeddings
        config = stacked_config(recipe, {n: model.config for n, model in self._models.items()})
        config.dtype = recipe.dtype or config.dtype
        config.tie_word_embeddings = is_tied_stack(recipe, self._models)
        with mergekit_errors(folder):
            config.save_pretrained(folder)
            if own in recipe.merges:
                with TemporaryDirectory() as merge:
                    plan_merge(recipe.merges[own]).write_files_beside_weights(Path(merge))
                    _copy_tokenizer(Path(merge), folder)
            else:
                _copy_tokenizer(merged_folder(own), folder)
            ends = stack_ends(recipe, self._sources)
            if ends.eos_token_id != self._models[own].generation_config.eos_token_id:
                ends.save_pretrained(folder)


def folded_tensors(
    recipe: StackRecipe, models: Mapping[str, PreTrainedModel], names: StackNames
) -> Iterator[NamedTensor]:
    """The folded checkpoint's tensors by name, one after the other.

    Args:
        models: loaded models by the recipe's names.
    """
    dtype: torch.dtype | None = getattr(torch, recipe.dtype) if recipe.dtype else None

    def scaled(tensor: torch.Tensor, factor: float, offset: int = 0) -> torch.Tensor:
        """Where a norm multiplies by offset + weight, that sum is scaled."""
        if dtype is not None:  # first, as a model that is kept in the stack's dtype is
            tensor = tensor.to(dtype)
        if factor != 1:
            tensor = (factor * (offset + tensor.double()) - offset).to(tensor.dtype)
        return tensor

    first, last = models[recipe.embeddings], models[recipe.head]
    for module in names.embeddings:
        for name, tensor in first.get_submodule(module).state_dict().items():
            yield f"{module}.{name}", scaled(tensor, 1)
    totals = cumulative_scales(recipe)
    for index, (step, total) in enumerate(zip(recipe.steps, totals, strict=True)):
        layer = models[step.model].get_submodule(names.layers)[step.layer]
        for name, tensor in layer.state_dict().items():
            factor, offset = _factor(name, total, names)
            yield f"{names.layers}.{index}.{name}", scaled(tensor, factor, offset)
    for name, tensor in last.get_submodule(names.final_norm).state_dict().items():
        sign = -1.0 if totals[-1] < 0 and name == "weight" else 1.0
        yield f"{names.final_norm}.{name}", scaled(tensor, sign, names.offset)
    if not is_tied_stack(recipe, models):
        for name, tensor in last.get_submodule("lm_head").state_dict().items():
            yield f"lm_head.{name}", scaled(tensor, 1)


def _factor(name: str, total: float, names: StackNames) -> tuple[float, int]:
    """What a tensor of a layer is multiplied by, where the stream is c_t = `total` times smaller.

    And the offset of its norm, if it is one.
    """
    if any(name.startswith(f"{part}.") for part in names.outer):
        return 1 / total, names.offset
    # The weight alone: a LayerNorm's bias is added after the sign.
    if total < 0 and any(name == f"{part}.weight" for part in names.inner):
        return -1.0, names.offset
    return 1.0, 0


def is_tied_stack(recipe: StackRecipe, models: Mapping[str, PreTrainedModel]) -> bool:
    """Is the stack's head one tensor with its embeddings?"""
    first, last = models[recipe.embeddings], models[recipe.head]
    return first.get_input_embeddings().weight is last.get_output_embeddings().weight


def cumulative_scales(recipe: StackRecipe) -> list[float]:
    """c_t = w_1 ... w_t for each step."""
    return list(accumulate((step.scale for step in recipe.steps), mul))


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder)
