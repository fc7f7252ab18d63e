"""Folding: a stack with its scales as an ordinary checkpoint, without any scale left.

With h_t = layer_t(w_t h_{t-1}) and c_t = w_1 ... w_t, the stream g_t = h_t / c_t passes through the
same layers unscaled when all that layer t adds to it is divided by c_t: a norm's output does not
depend on a positive factor of its input (but for the norm's epsilon), and changes its sign with it.
So the outputs of attention and MLP are multiplied by 1 / c_t, and for c_t < 0 the weights of the
norms that read the stream change their sign, those of the final norm with the last c.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

from evomerge_optuna.models.architectures import StackNames
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe


def cumulative_scales(recipe: StackRecipe) -> list[float]:
    """c_t = w_1 ... w_t for each step."""
    return list(accumulate((step.scale for step in recipe.steps), mul))


def folded_recipe(recipe: StackRecipe, names: StackNames) -> MergeRecipe:
    """The stack as a mergekit `passthrough` merge: a slice for each step, with what it scales.

    Norms that multiply by 1 + weight, and what comes from another model than the first and last
    steps', are left as they are: see `corrections`.
    """
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
        "base_model": recipe.embeddings,
        "slices": slices,
    }
    if recipe.dtype:
        configuration["dtype"] = recipe.dtype
    return MergeRecipe(configuration=configuration, seed=0)


def _parameters(total: float, names: StackNames) -> dict[str, Any]:
    if names.offset:
        return {}
    scale = [{"filter": f"{part}.", "value": 1 / total} for part in names.outer]
    if total < 0:
        # The weight alone: a LayerNorm's bias is added after the sign.
        scale += [{"filter": f"{part}.weight", "value": -1.0} for part in names.inner]
    return {"parameters": {"scale": scale}} if total != 1 else {}


@dataclass(frozen=True)
class Correction:
    """A tensor of the folded checkpoint that mergekit's multiplicative scale cannot give.

    It is `factor * (offset + tensor) - offset` of a model's tensor.
    """

    name: str
    model: str
    tensor: str
    factor: float = 1.0
    offset: int = 0


def corrections(recipe: StackRecipe, names: StackNames) -> Iterator[Correction]:
    """What is written over mergekit's result, in the names of the model's own modules."""
    totals = cumulative_scales(recipe)
    first, last = recipe.steps[0].model, recipe.steps[-1].model
    if recipe.embeddings != first:
        for module in names.embeddings:
            yield Correction(f"{module}.weight", recipe.embeddings, f"{module}.weight")
    ...
