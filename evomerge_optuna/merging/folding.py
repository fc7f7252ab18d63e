"""Folding: a stack with its scales as an ordinary checkpoint, without any scale left.

With h_t = layer_t(w_t h_{t-1}) and c_t = w_1 ... w_t, the stream g_t = h_t / c_t passes through the
same layers unscaled when all that layer t adds to it is divided by c_t: a norm's output does not
depend on a positive factor of its input (but for the norm's epsilon), and changes its sign with it.
So the outputs of attention and MLP are multiplied by 1 / c_t, and for c_t < 0 the weights of the
norms that read the stream change their sign, those of the final norm with the last c.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from evomerge_optuna.merging.checkpoint import scratch_folder, write_checkpoint
from evomerge_optuna.merging.plan import mergekit_errors, plan_merge
from evomerge_optuna.merging.stacked import load_source, stack_digest, stacked_config
from evomerge_optuna.models.architectures import StackNames, stack_names
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe


def write_stack(recipe: StackRecipe, folder: Path, device: str) -> str:
    """Writes the stack's folded checkpoint and returns its digest, see `StackedMerger.merge`.

    Its merges are written first, by mergekit.

    Raises:
        CandidateError: mergekit refuses it.
        OSError: the machine's fault: a file cannot be read or written.
    """
    with ExitStack() as files:
        # Not beside the folder, whose path mergekit might read as that of something else.
        places = {name: files.enter_context(scratch_folder()) for name in recipe.merges}
        digests = {
            name: write_checkpoint(recipe.merges[name], place, device)
            for name, place in places.items()
        }
        models: dict[str, Any] = {}
        for name in recipe.models():
            if name in places:
                models[str(places[name])], _ = load_model(places[name], device)
            else:
                source = load_source(name, recipe.dtype, device)
                models[name], digests[name] = source.model, source.digest
        located = recipe.located(lambda name: str(places.get(name, name)))
        write_folded(located, folder, models)
    return stack_digest(recipe, digests)


def write_folded(recipe: StackRecipe, folder: Path, models: Mapping[str, Any]) -> None:
    """Writes the stack as a checkpoint of its models' own architecture.

    mergekit writes it, but for what its `scale` cannot express; see `corrections`.

    Args:
        models: loaded models by the recipe's names.

    Raises:
        CandidateError: mergekit refuses it.
        OSError: the machine's fault: a file cannot be read or written.
    """
    configs = {name: model.config for name, model in models.items()}
    names = stack_names(configs[recipe.embeddings].model_type, recipe.embeddings)
    with mergekit_errors(folder):
        # Not run_merge, which writes a configuration that lists too few layers.
        plan = plan_merge(folded_recipe(recipe, names), folder)
        plan.write_weights()
        plan.write_tokenizer(folder)
        config = stacked_config(recipe, configs)
        config.dtype = recipe.dtype or config.dtype
        config.tie_word_embeddings = config.tie_word_embeddings and recipe.head == recipe.embeddings
        config.save_pretrained(folder)
        wanted = list(corrections(recipe, names))
        if wanted:
            model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
            with torch.no_grad():
                for correction in wanted:
                    source = models[correction.model].get_parameter(correction.source)
                    model.get_parameter(correction.name).copy_(correction.of(source))
            for file in folder.glob("*.safetensors*"):
                file.unlink()
            model.save_pretrained(folder)


def cumulative_scales(recipe: StackRecipe) -> list[float]:
    """c_t = w_1 ... w_t for each step."""
    return list(accumulate((step.scale for step in recipe.steps), mul))


def folded_recipe(recipe: StackRecipe, names: StackNames) -> MergeRecipe:
    """The stack as a mergekit `passthrough` merge: a slice for each step, with what it scales."""
    slices = [
        {
            "sources": [
                {
                    "model": step.model,
                    "layer_range": [step.layer, step.layer + 1],
                    **_parameters(total, names),
                }
            ]
        }
        for step, total in zip(recipe.steps, cumulative_scales(recipe), strict=True)
    ]
    configuration: dict[str, Any] = {
        "merge_method": "passthrough",
        "base_model": recipe.embeddings,  # its configuration and tokenizer
        "slices": slices,
    }
    if recipe.dtype:
        configuration["dtype"] = recipe.dtype
    return MergeRecipe(configuration=configuration, seed=0)


def _parameters(total: float, names: StackNames) -> dict[str, Any]:
    if names.offset or total == 1:
        return {}
    scale = [{"filter": f"{part}.", "value": 1 / total} for part in names.outer]
    if total < 0:
        # The weight alone: a LayerNorm's bias is added after the sign.
        scale += [{"filter": f"{part}.weight", "value": -1.0} for part in names.inner]
    return {"parameters": {"scale": scale}}


@dataclass(frozen=True)
class Correction:
    """A parameter of the folded model made of a parameter of one of its models.

    `factor * (offset + source) - offset`, where a norm multiplies by offset + weight.
    """

    name: str
    model: str
    source: str
    factor: float = 1.0
    offset: int = 0

    def of(self, source: torch.Tensor) -> torch.Tensor:
        """The corrected values."""
        if self.factor == 1:
            return source
        return self.factor * (self.offset + source.double()) - self.offset


def corrections(recipe: StackRecipe, names: StackNames) -> Iterator[Correction]:
    """What mergekit's multiplicative scale and its choice of models do not give.

    Norms that multiply by 1 + weight; the final norm's sign; embeddings, final norm and head
    that come from another model than the first and the last step.
    """
    totals = cumulative_scales(recipe)
    if recipe.embeddings != recipe.steps[0].model:
        for module in names.embeddings:
            yield Correction(f"{module}.weight", recipe.embeddings, f"{module}.weight")
    if names.offset:
        for index, (step, total) in enumerate(zip(recipe.steps, totals, strict=True)):
            here, there = f"{names.layers}.{index}", f"{names.layers}.{step.layer}"
            factors = {**dict.fromkeys(names.outer, 1 / total)}
            factors |= dict.fromkeys(names.inner, -1.0 if total < 0 else 1.0)
            for part, factor in factors.items():
                if factor != 1:
                    yield Correction(
                        f"{here}.{part}.weight",
                        step.model,
                        f"{there}.{part}.weight",
                        factor,
                        names.offset,
                    )
    sign = -1.0 if totals[-1] < 0 else 1.0
    elsewhere = recipe.head != recipe.steps[-1].model
    if elsewhere or sign < 0:
        weight = f"{names.final_norm}.weight"
        yield Correction(weight, recipe.head, weight, sign, names.offset)
    if elsewhere and names.norm_bias:
        yield Correction(f"{names.final_norm}.bias", recipe.head, f"{names.final_norm}.bias")
    if elsewhere or recipe.head != recipe.embeddings:
        yield Correction("lm_head.weight", recipe.head, "lm_head.weight")
