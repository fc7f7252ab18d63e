"""The models of a study from what a user names: fine-tunes, or adapters and their base."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge_optuna.errors import UsageError
from evomerge_optuna.proposal.base_model import (
    Base,
    adapter_base,
    find_base,
    is_adapter,
    is_lora_of,
)
from evomerge_optuna.proposal.inventory import Inventory
from evomerge_optuna.proposal.names import alias, seen_from


@dataclass(frozen=True)
class Sources:
    """Models as they are found from the current folder.

    Attributes:
        base: None: there is none.
        models: the source models by their aliases.
        are_lora: all are LoRA adapters of the base model, of which one adapter can be made.
    """

    base: Base | None
    models: dict[str, str]
    are_lora: bool = False

    @property
    def by_key(self) -> dict[str, str]:
        """All of them by their keys in the spec, the base model first."""
        base = {} if self.base is None else {"base_model": self.base.model}
        return base | {f"models.{name}": model for name, model in self.models.items()}

    def seen_from(self, folder: Path) -> "Sources":
        """The same, as a spec in this folder names them."""
        base = self.base
        if base is not None:
            base = replace(base, model=seen_from(folder, base.model))
        models = {name: seen_from(folder, model) for name, model in self.models.items()}
        return Sources(base, models, self.are_lora)


def proposed_sources(here: Inventory) -> list[str]:
    """What lies here that could be merged: all adapters and models but the one they come from."""
    bases = {adapter_base(adapter, here.models) for adapter in here.adapters}
    found = find_base(here.models, ()) if not here.adapters else None
    bases.add(None if found is None else found.model)
    return [*here.adapters, *(model for model in here.models if model not in bases)]


def proposed_base(chosen: Sequence[str], here: Inventory) -> Base | None:
    """The base model of what was chosen; None where nothing tells."""
    others = [model for model in here.models if model not in chosen]
    return find_base(chosen, others)


def sources_of(chosen: Sequence[str], base: Base | None, here: Inventory) -> Sources:
    """The models of a study.

    Raises:
        UsageError: there are too few, or an adapter's base model is not known.
    """
    named: dict[str, str] = {}
    for model in dict.fromkeys(chosen):
        if base is not None and _same(model, base.model):
            continue
        named[alias(model, named)] = _with_base(model, base, here)
    fewest = 2 if base is None else 1
    if len(named) < fewest:
        raise UsageError(
            f"a merge needs {'two models, or one and a base model' if base is None else 'a model'}"
            f" to merge; {'only ' + ', '.join(named) + ' is' if named else 'none is'} given"
        )
    are_lora = base is not None and all(is_lora_of(base.model, m) for m in named.values())
    return Sources(base, named, are_lora)


def _with_base(model: str, base: Base | None, here: Inventory) -> str:
    """An adapter after the model that it belongs to; any other model as it is."""
    if not is_adapter(model):
        return model
    own = adapter_base(model, here.models) or (None if base is None else base.model)
    if own is None:
        raise UsageError(f"{model} is an adapter, and nothing names its base model; give --base")
    return f"{own}+{model}"


def _same(one: str, other: str) -> bool:
    return one == other or (
        os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
    )
