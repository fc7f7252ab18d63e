"""An adapter that was found: as an adapter, or merged into its base model."""

import tempfile
from pathlib import Path

from evomerge_optuna.merging.adapters.written import Written, write_adapter
from evomerge_optuna.models.adapted import write_merged
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.recipes.adapter import AdapterRecipe

ADAPTER_RECIPE = "adapter_recipe.yml"


def write_found(recipe: AdapterRecipe, folder: Path, *, merged: bool) -> Written:
    """Writes a recipe's adapter into an empty folder, or its base model with the adapter in it.

    Raises:
        CandidateError: the recipe cannot be built.
        SpecError: peft cannot merge it, or what it makes answers otherwise.
        OSError: a file cannot be read or written.
    """
    if not merged:
        found = write_adapter(recipe, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            found = write_adapter(recipe, Path(name))
            write_merged(local_folder(recipe.base_model), Path(name), "the adapter", folder)
    (folder / ADAPTER_RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    return found
