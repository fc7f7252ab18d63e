"""A recipe of either kind, as it is stored with a trial."""

from typing import Any

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe

Recipe = MergeRecipe | StackRecipe


def parse_recipe(stored: dict[str, Any]) -> Recipe:
    """The recipe that `model_dump` gave."""
    kind = StackRecipe if "steps" in stored else MergeRecipe
    return kind.model_validate(stored)
