"""Adapter recipes: stored, told apart, and moved to where models lie."""

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from evomerge_optuna.recipes.recipe import parse_recipe


def a_recipe(weight: float = 0.5) -> AdapterRecipe:
    return AdapterRecipe(
        base_model="./base",
        adapters=("./base+./x",),
        method="cat",
        groups=(ModuleGroup(layers=(0, 2), values={"./base+./x": {"weight": (weight, 1.0)}}),),
        layers=2,
        reads_as="./base+./x",
        seed=0,
    )


def test_a_stored_recipe_is_the_same() -> None:
    recipe = a_recipe()
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    assert parse_recipe(recipe.model_dump(mode="json")).digest() == recipe.digest()
    assert recipe.digest() != a_recipe(0.25).digest()
    assert recipe.models() == ["./base", "./base+./x"]


def test_every_name_is_replaced() -> None:
    located = a_recipe().located(lambda name: name.replace("./", "/there/"))
    assert "./" not in located.canonical()
    assert located.groups[0].values["/there/base+/there/x"]["weight"] == (0.5, 1.0)


def test_values_are_finite() -> None:
    content = a_recipe().model_dump(mode="json")
    content["groups"][0]["values"]["./base+./x"]["weight"] = float("nan")
    with pytest.raises(SpecError, match="recipe: groups"):
        parse_recipe(content)
