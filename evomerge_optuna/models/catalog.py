"""Models by their names alone, for who asks one thing of one model; see `models.opened`."""

from pathlib import Path

from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.sources import source_of


def check_exists(model: str, key: str) -> None:
    """Refuses a name that cannot be a model, before anything is downloaded.

    Raises:
        SpecError: naming `key`, the model's place in the spec.
    """
    source_of(model).check(model, key)


def local_folder(model: str) -> Path:
    """A local folder with the model's checkpoint: downloaded, merged or copied if need be.

    Raises:
        SpecError: the model cannot be had, has no safetensors weights, or its adapter does not fit.
    """
    return OpenedModel(model).folder


def mergekit_name(model: str) -> str:
    """The model as plain mergekit finds it, which knows hub ids, but neither the zoo nor `~`."""
    return source_of(model).mergekit_name(model)
