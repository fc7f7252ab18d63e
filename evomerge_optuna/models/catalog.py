"""Models by their names alone, for who asks one thing of one model; see `models.opened`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.models.fingerprint import Fingerprint
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.sources import source_of as _source_of
from evomerge_optuna.models.sources.base import OnStep
from evomerge_optuna.models.sources.zoo import ZOO_MODELS as ZOO_MODELS

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def check_exists(model: str, key: str) -> None:
    """Refuses a name that cannot be a model, before anything is built or downloaded.

    Raises:
        SpecError: naming `key`, the model's place in the spec.
    """
    _source_of(model).check(model, key)


def is_on_hub(model: str) -> bool:
    """Are the model's weights on the hub, and perhaps not on this machine yet?"""
    return _source_of(model).is_on_hub(model)


def source_of(model: str) -> tuple[str, str | None]:
    """A model as transformers loads it: a folder or hub repository, and a revision of the latter.

    Of one with an adapter its base.

    Example:
        >>> source_of("organisation/model@v1+organisation/adapter")
        ('organisation/model', 'v1')
    """
    return _source_of(model).location(model)


def trained_here(models: Iterable[str]) -> list[str]:
    """The models among these that are trained when they are first used, as those of the zoo are."""
    return [model for model in models if _source_of(model).is_trained(model)]


def train(model: str, on_step: OnStep = lambda done, total: None) -> None:
    """Trains one of the models that are `trained_here`, unless it is there already.

    Args:
        on_step: called with the steps of training that are done, and with all of them.
    """
    _source_of(model).train(model, on_step)


def load_config(model: str, key: str) -> "PretrainedConfig":
    return OpenedModel(model, key).config


def load_tokenizer(model: str, key: str) -> Any:
    return OpenedModel(model, key).tokenizer


def local_folder(model: str) -> Path:
    """A local folder with the model's checkpoint: trained, downloaded or merged if need be.

    Raises:
        SpecError: the model cannot be had, has no safetensors weights, or its adapter does not fit.
    """
    return OpenedModel(model).folder


def model_fingerprint(model: str) -> Fingerprint:
    return OpenedModel(model).fingerprint


def mergekit_name(model: str) -> str:
    """The model as plain mergekit finds it, which knows hub ids, but neither the zoo nor `~`."""
    return _source_of(model).mergekit_name(model)


def adapted_config(model: str, config: "PretrainedConfig", key: str) -> "PretrainedConfig":
    return OpenedModel(model, key).with_adapter(config)
