"""Models by their names alone, for who asks one thing of one model; see `models.opened`."""

from collections.abc import Iterable
from pathlib import Path

from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.sources import source_of
from evomerge_optuna.models.sources.base import OnStep


def check_exists(model: str, key: str) -> None:
    """Refuses a name that cannot be a model, before anything is trained or downloaded.

    Raises:
        SpecError: naming `key`, the model's place in the spec.
    """
    source_of(model).check(model, key)


def trained_here(models: Iterable[str]) -> list[str]:
    """The models among these that are trained when they are first used, as those of the zoo are."""
    return [model for model in models if source_of(model).is_trained(model)]


def train(model: str, on_step: OnStep = lambda done, total: None) -> None:
    """Trains one of the models that are `trained_here`, unless it is there already.

    Args:
        on_step: called with the steps of training that are done, and with all of them.
    """
    source_of(model).train(model, on_step)


def local_folder(model: str) -> Path:
    """A local folder with the model's checkpoint: trained, downloaded or merged if need be.

    Raises:
        SpecError: the model cannot be had, has no safetensors weights, or its adapter does not fit.
    """
    return OpenedModel(model).folder


def mergekit_name(model: str) -> str:
    """The model as plain mergekit finds it, which knows hub ids, but neither the zoo nor `~`."""
    return source_of(model).mergekit_name(model)
