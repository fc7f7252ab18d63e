"""A recipe of any kind, as it is stored with a trial."""

from typing import Any, TypeAlias

from pydantic import ValidationError

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import explain
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe

WholeRecipe: TypeAlias = MergeRecipe | StackRecipe  # of a model with all of its weights
Recipe: TypeAlias = WholeRecipe | AdapterRecipe


def parse_recipe(stored: dict[str, Any]) -> Recipe:
    """The recipe that `model_dump` gave.

    Raises:
        SpecError: one line for the first thing that is wrong with it.
    """
    kind: type[Recipe] = MergeRecipe
    if "steps" in stored:
        kind = StackRecipe
    elif "adapters" in stored:
        kind = AdapterRecipe
    try:
        return kind.model_validate(stored)
    except ValidationError as error:
        raise SpecError(f"recipe: {explain(error, kind)}") from error
