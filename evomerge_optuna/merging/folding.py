"""Folding: a stack with its scales as an ordinary checkpoint, without any scale left.

With h_t = layer_t(w_t h_{t-1}) and c_t = w_1 ... w_t, the stream g_t = h_t / c_t passes through the
same layers unscaled when all that layer t adds to it is divided by c_t: a norm's output does not
depend on a positive factor of its input (but for the norm's epsilon), and changes its sign with it.
So the outputs of attention and MLP are multiplied by 1 / c_t, and for c_t < 0 the weights of the
norms that read the stream change their sign, those of the final norm with the last c.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

import torch

from evomerge_optuna.families import merged_folder
from evomerge_optuna.merging.checkpoint import scratch_folder, write_checkpoint
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.plan import mergekit_errors
from evomerge_optuna.merging.stacked import load_source, stack_digest, stacked_config, stacked_ends
from evomerge_optuna.models.architectures import StackNames, stack_names
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.shards import write_tensors
from evomerge_optuna.recipes.stack import StackRecipe


def write_stack(recipe: StackRecipe, folder: Path, device: str) -> str:
    """Writes the stack's folded checkpoint and returns its digest, see `StackedMerger.merge`.

    Its merges are written first, by mergekit.

    Raises:
        CandidateError: mergekit refuses one of them.
        OSError: the machine's fault: a file cannot be read or written.
    """
    with ExitStack() as files:
        # Not beside the folder, whose path mergekit might read as that of something else.
        places = {name: files.enter_context(scratch_folder()) for name in recipe.merges}
        found: dict[str, Merged] = {}
        for name in recipe.models():
            if name in places:
                digest = write_checkpoint(recipe.merges[name], places[name], device)
                found[name] = Merged(*load_model(places[name], device), digest)
            else:
                found[name] = load_source(name, recipe.dtype, device)
        write_folded(recipe, folder, {name: merged.model for name, merged in found.items()})
        own = recipe.embeddings
        _copy_tokenizer(places[own] if own in places else merged_folder(own), folder)
        ends = stacked_ends(recipe, found)
        if ends.eos_token_id != found[own].model.generation_config.eos_token_id:
            ends.save_pretrained(folder)
    return stack_digest(recipe, {name: merged.digest for name, merged in found.items()})


def write_folded(recipe: StackRecipe, folder: Path, models: Mapping[str, Any]) -> None:
    """Writes weights and configuration of a stack, of its models' own architecture.

    Args:
        models: loaded models by the recipe's names.

    Raises:
        OSError: the machine's fault: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs = {name: model.config for name, model in models.items()}
    names = stack_names(configs[recipe.embeddings].model_type, recipe.embeddings)
    config = stacked_config(recipe, configs)
    config.dtype = recipe.dtype or config.dtype
    config.tie_word_embeddings = is_tied_stack(recipe, models)
    with mergekit_errors(folder), torch.no_grad():
        write_tensors(folder, folded_tensors(recipe, models, names))
        config.save_pretrained(folder)


def folded_tensors(
    recipe: StackRecipe, models: Mapping[str, Any], names: StackNames
) -> Iterator[tuple[str, torch.Tensor]]:
    """The folded checkpoint's tensors by name, one after the other.

    Args:
        models: loaded models by the recipe's names.
    """
    dtype: torch.dtype | None = getattr(torch, recipe.dtype) if recipe.dtype else None

    def scaled(tensor: torch.Tensor, factor: float, offset: int = 0) -> torch.Tensor:
        """Where a norm multiplies by offset + weight, that sum is scaled."""
        if factor != 1:
            tensor = (factor * (offset + tensor.double()) - offset).to(tensor.dtype)
        return tensor if dtype is None else tensor.to(dtype)

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


def is_tied_stack(recipe: StackRecipe, models: Mapping[str, Any]) -> bool:
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
