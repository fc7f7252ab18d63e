"""A recipe is its content: it survives JSON, and equal content is one recipe.

Covers recipes.identity, too.
"""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evomerge_optuna.recipes.merge import MergeRecipe


def recipe(weight: float = 0.5, seed: int = 0) -> MergeRecipe:
    source = {"model": "zoo:add", "parameters": {"weight": weight}}
    return MergeRecipe(
        configuration={"merge_method": "ties", "base_model": "zoo:base", "models": [source]},
        seed=seed,
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_and_yaml_keep_every_bit(weight: float) -> None:
    made = recipe(weight)
    again = MergeRecipe.model_validate_json(made.model_dump_json())
    assert again == made
    assert again.digest() == made.digest()
    assert hash(again) == hash(made)
    assert yaml.safe_load(made.to_yaml()) == made.configuration


def test_weight_and_seed_are_part_of_the_identity() -> None:
    assert len({recipe(), recipe(0.25), recipe(seed=1)}) == 3


def test_order_of_keys_is_not() -> None:
    turned = MergeRecipe(configuration=dict(reversed(recipe().configuration.items())), seed=0)
    assert turned.digest() == recipe().digest()


def test_located_replaces_every_model() -> None:
    located = recipe().located(lambda model: model.replace("zoo:", "/models/"))
    assert located.models() == ["/models/base", "/models/add"]
    assert recipe().models() == ["zoo:base", "zoo:add"]


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        recipe().seed = 2
