"""A recipe of either kind, as it is stored with a trial."""

from typing import Any

from pydantic import ValidationError

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import explain
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe

Recipe = MergeRecipe | StackRecipe


def parse_recipe(stored: dict[str, Any]) -> Recipe:
    """The recipe that `model_dump` gave.

    Raises:
        SpecError: one line for the first thing that is wrong with it.
    """
    kind = StackRecipe if "steps" in stored else MergeRecipe
    try:
        return kind.model_validate(stored)
    except ValidationError as error:
        raise SpecError(f"recipe: {explain(error, kind)}") from error
