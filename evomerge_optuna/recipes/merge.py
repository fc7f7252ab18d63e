"""MergeRecipe: the complete description of one merged model, as mergekit understands it."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.recipes.identity import READ_ONLY, Host, Identified

_DEEPEST = 50  # mergekit needs 8; pydantic writes some 250


def _as_json(content: dict[str, Any]) -> dict[str, Any]:
    """What JSON makes of it, so that a stored recipe is equal to the one that was stored."""
    try:
        text = json.dumps(content, allow_nan=False, ensure_ascii=False)
        text.encode()  # a lone surrogate has no digest
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("holds something that JSON cannot, such as NaN or a date") from error
    kept: dict[str, Any] = json.loads(text)
    if _depth(kept) > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep")
    return kept


def _depth(part: Any) -> int:
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return 1 + max((_depth(item) for item in parts), default=0)


class Fused(BaseModel):
    """A LoRA that is fused into a merge of pipelines once it is made."""

    model_config = READ_ONLY

    lora: Annotated[str, Field(min_length=1)]
    """A file or a hub repository with LoRA weights, as diffusers loads them."""
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """How much of it is added."""


class MergeRecipe(Identified):
    """A mergekit configuration plus the seed of its random masks.

    Models are named as in the spec (hub id, path, `zoo:NAME`), so that a recipe holds on every
    machine. The configuration is kept in mergekit's own JSON form; mergekit validates it when it
    merges. Two recipes are equal when their canonical JSON is. With a `host` the configuration is
    about one part of the models, and the merged part is put into the model of this name.
    Of pipelines that part is the denoiser, with the other `components` that are named, and a LoRA
    may be fused into it `after` the merge.

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

    configuration: Annotated[dict[str, Any], AfterValidator(_as_json)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    host: Host = None
    components: tuple[str, ...] = ()
    after: Fused | None = None

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
        host = None if self.host is None else locate(self.host)
        located = {"configuration": _map_models(self.configuration, locate), "host": host}
        return self.model_copy(update=located)

    def without_host(self) -> "MergeRecipe":
        """The same merge without the host: the merged part alone."""
        return self.model_copy(update={"host": None})

    def to_yaml(self) -> str:
        """The configuration as a mergekit YAML file; see `how_to_repeat`."""
        return to_yaml(self.configuration)

    def how_to_repeat(self, file: str, program: str = "mergekit-yaml") -> list[str]:
        """How mergekit writes the merged model from the configuration in this file.

        A command, and a remark each where there are adapters and where vocabularies are united.
        """
        adapted = any("+" in model for model in self.models())
        cache = "--lora-merge-cache CACHE " if adapted else ""
        lines = [f"{program} --random-seed {self.seed} {cache}{file} OUT"]
        if adapted:
            lines.append(
                "The first run merges the adapters into CACHE, which moves DARE's masks; "
                "run it again."
            )
        if self.configuration.get("tokenizer_source") == "union":
            lines.append(
                "mergekit orders a union's tokens anew every time; for this order write the path "
                "of this model's folder in the place of `union`."
            )
        return lines


def _map_models(part: Any, change: Callable[[str], str]) -> Any:
    if isinstance(part, list):
        return [_map_models(item, change) for item in part]
    if isinstance(part, dict):
        return {
            key: change(value) if _names_model(key, value) else _map_models(value, change)
            for key, value in part.items()
        }
    return part


def _names_model(key: str, value: Any) -> bool:
    if key == "tokenizer_source":
        return value not in (None, "base", "union")
    return key in ("model", "base_model") and isinstance(value, str)
