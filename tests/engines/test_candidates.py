"""Candidates in the dtype in which they are to be scored: their digest is the recipe's own."""

from pathlib import Path

import pytest
import torch

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import EvaluationSpec
from tests.conftest import LAYERS, SpecMaker
from tests.engine import merged_of

IDS = torch.arange(10)[None]


@pytest.mark.parametrize("merger", ["resident", "checkpoint"])
def test_a_merge(make_spec: SpecMaker, home: Path, merger: str) -> None:
    spec = make_spec()
    space = make_space(spec, dict.fromkeys(spec.model_ids(), LAYERS))
    recipe = space.recipe(space.baseline())
    _same_but_for_the_dtype(recipe, merger)


def test_a_stack_shares_what_it_repeats(tiny: Path) -> None:
    name = str(tiny / "a")
    steps = (Step(model=name, layer=0), Step(model=name, layer=0, scale=0.5))
    _same_but_for_the_dtype(StackRecipe(embeddings=name, steps=steps, head=name), "resident")
    builder = Builder(EvaluationSpec(dtype="bfloat16"))
    built = builder.build(StackRecipe(embeddings=name, steps=steps, head=name))
    first, second = merged_of(built).model.model.layers
    assert first.mlp.up_proj.weight is second.mlp.up_proj.weight
    assert load_model(tiny / "a", "cpu")[0].dtype == torch.float32


def _same_but_for_the_dtype(recipe: Recipe, merger: str) -> None:
    plain = merged_of(Builder(EvaluationSpec(merger=merger)).build(recipe))
    given = EvaluationSpec.model_validate({"merger": merger, "dtype": "bfloat16"})
    mine = Builder(given)
    for _ in range(2):  # the next merge overwrites the last one's own weights, not the copy
        cast = merged_of(mine.build(recipe))
    assert cast.digest == plain.digest
    assert (plain.model.dtype, cast.model.dtype) == (torch.float32, torch.bfloat16)
    with torch.no_grad():
        wanted = plain.model(IDS).logits
        assert torch.allclose(cast.model(IDS).logits.float(), wanted, atol=0.05)
        assert not torch.equal(cast.model(IDS).logits.float(), wanted)
