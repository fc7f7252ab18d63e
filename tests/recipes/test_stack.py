"""A stack recipe is the same after any way through text.

Covers recipes.recipe, too.
"""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import parse_recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step

MODELS = st.sampled_from(["zoo:add", "organisation/model@v1", "/a/b"])
STEPS = st.builds(
    Step,
    model=MODELS,
    layer=st.integers(0, 80),
    scale=st.floats(-2, 2, exclude_min=True).filter(bool),
)
RECIPES = st.builds(
    StackRecipe,
    embeddings=MODELS,
    steps=st.lists(STEPS, min_size=1, max_size=9).map(tuple),
    head=MODELS,
    dtype=st.none() | st.just("bfloat16"),
)


@given(RECIPES)
def test_through_json_and_yaml(recipe: StackRecipe) -> None:
    for stored in (recipe.model_dump(mode="json"), yaml.safe_load(recipe.to_yaml())):
        again = parse_recipe(stored)
        assert again == recipe
        assert hash(again) == hash(recipe)
        assert again.digest() == recipe.digest()


@given(RECIPES, RECIPES)
def test_equal_digests_mean_equal_recipes(one: StackRecipe, other: StackRecipe) -> None:
    assert (one.digest() == other.digest()) == (one == other)


def test_one_step_a_line() -> None:
    steps = (Step(model="zoo:add", layer=0), Step(model="zoo:ja", layer=5, scale=0.9))
    text = StackRecipe(embeddings="zoo:add", steps=steps, head="zoo:ja").to_yaml()
    assert "- {model: 'zoo:ja', layer: 5, scale: 0.9}" in text.splitlines()


def test_a_path_has_a_step() -> None:
    with pytest.raises(ValidationError):
        StackRecipe(embeddings="a", steps=(), head="a")


def test_kinds_are_told_apart() -> None:
    merge = MergeRecipe(configuration={"merge_method": "linear", "models": []}, seed=0)
    assert parse_recipe(merge.model_dump(mode="json")) == merge
