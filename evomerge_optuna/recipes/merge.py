"""MergeRecipe: the complete description of one merged model, as mergekit understands it."""

from collections.abc import Callable
from typing import Any

import yaml

from evomerge_optuna.recipes.identity import Identified


class MergeRecipe(Identified):
    """A mergekit configuration plus the seed of its random masks.

    Models are named as in the spec (hub id, path, `zoo:NAME`), so that a recipe holds on every
    machine. The configuration is kept in mergekit's own JSON form; mergekit validates it when it
    merges. Two recipes are equal when their canonical JSON is.

    Example:
        >>> recipe = MergeRecipe(
        ...     configuration={
        ...         "merge_method": "linear",
        ...         "models": [{"model": "zoo:add", "parameters": {"weight": 1.0}}],
        ...     },
        ...     seed=0,
        ... )
        >>> MergeRecipe.model_validate_json(recipe.model_dump_json()) == recipe
        True
    """

    configuration: dict[str, Any]
    seed: int

    def models(self) -> list[str]:
        """Every model the configuration names, in order of appearance."""
        found: dict[str, None] = {}

        def collect(model: str) -> str:
            found[model] = None
            return model

        _map_models(self.configuration, collect)
        return list(found)

    def located(self, locate: Callable[[str], str]) -> "MergeRecipe":
        """The same recipe with every model's name replaced by `locate(name)`."""
        return self.model_copy(update={"configuration": _map_models(self.configuration, locate)})

    def to_yaml(self) -> str:
        """The configuration as a mergekit YAML file; give the seed as `--random-seed`."""
        return yaml.safe_dump(self.configuration, sort_keys=False, allow_unicode=True)


def _map_models(part: Any, change: Callable[[str], str]) -> Any:
    if isinstance(part, list):
        return [_map_models(item, change) for item in part]
    if isinstance(part, dict):
        return {
            key: change(value)
            if key in ("model", "base_model") and isinstance(value, str)
            else _map_models(value, change)
            for key, value in part.items()
        }
    return part
