"""Do the adapters of a study fit on its base model, and to each other? Their headers are read."""

import re
from collections.abc import Iterator, Mapping

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.fit import check_layer_groups
from evomerge_optuna.models.adapters import split_adapter
from evomerge_optuna.models.lora import (
    LoraHeader,
    check_plain,
    check_values,
    lora_headers,
    lora_settings,
)
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.sources.adapted import adapter_folder
from evomerge_optuna.spec import AdapterStudySpec

# What a repository of quantised weights has in its name.
_QUANTISED = re.compile(r"[48]-?bit|int[48]|nf4|fp[48]|gptq|awq|gguf", re.IGNORECASE)


def check_plain_adapters(models: Mapping[str, OpenedModel]) -> None:
    """Refuses adapters that are more than A and B; see `check_plain`.

    Args:
        models: of the spec, by their keys.
    """
    for key, model in _adapters(models):
        check_plain(adapter_folder(model.name), f"{key}: {split_adapter(model.name)[1]}")


def check_adapter_values(models: Mapping[str, OpenedModel]) -> None:
    """Reads every tensor of the adapters once; see `check_values`."""
    for key, model in _adapters(models):
        name = f"{key}: {split_adapter(model.name)[1]}"
        check_values(adapter_folder(model.name), models["base_model"].folder, name)


def check_adapters(
    spec: AdapterStudySpec, models: Mapping[str, OpenedModel], layers: int
) -> tuple[str, ...]:
    """Checks that the spec's methods and groups fit adapters, each of which fits the base model.

    Returns:
        What the user should know of them, in lines.

    Raises:
        SpecError: naming the adapter or the key of the merge.
    """
    headers = {k: lora_headers(adapter_folder(m.name), k) for k, m in _adapters(models)}
    for method in spec.merge.rows:
        if method.rank == "same":
            _check_same_ranks(method.name, headers)
    modules = dict.fromkeys(module for own in headers.values() for module in own)
    check_layer_groups(spec.merge, layers, modules)
    return tuple(_remarks(spec, models))


def _check_same_ranks(method: str, adapters: Mapping[str, Mapping[str, LoraHeader]]) -> None:
    first: dict[str, tuple[str, int]] = {}
    for key, modules in adapters.items():
        for module, header in modules.items():
            other, rank = first.setdefault(module, (key, header.rank))
            if header.rank != rank:
                raise SpecError(
                    f"{key}: has rank {header.rank} in {module}, but {other} has {rank}, and "
                    f"{method} adds A to A and B to B; write method: cat or method: svd"
                )


def _remarks(spec: AdapterStudySpec, models: Mapping[str, OpenedModel]) -> Iterator[str]:
    """Where an adapter says that it was trained on another base model."""
    for key, model in _adapters(models):
        settings = lora_settings(adapter_folder(model.name), key)
        trained_on = str(settings.get("base_model_name_or_path") or "")
        if not trained_on or _last(trained_on) == _last(spec.base_model):
            continue
        what = "is right if these are the same model"
        if _QUANTISED.search(_last(trained_on)):
            what = (
                "has more exact weights than those that it was trained on, so it answers a little "
                "otherwise than there"
            )
        yield f"{key} was trained on {trained_on}; base_model {spec.base_model} {what}"


def _last(name: str) -> str:
    return name.partition("@")[0].rstrip("/").rpartition("/")[2].lower()


def _adapters(models: Mapping[str, OpenedModel]) -> Iterator[tuple[str, OpenedModel]]:
    return ((key, model) for key, model in models.items() if key != "base_model")
