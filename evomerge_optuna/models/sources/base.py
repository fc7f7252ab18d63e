"""What every source of models can do."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_files
from evomerge_optuna.models.files import check_index
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES, Fingerprint, fingerprint
from evomerge_optuna.models.pipelines import check_pipeline, checkpoint_folders, is_pipeline
from evomerge_optuna.models.shards import weight_files

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Location = tuple[str, str | None]  # a folder or a hub repository, and a revision of the latter


class Source(ABC):
    """Gives the models whose names it recognises.

    Attributes:
        cure: what helps a study whose model has changed since it was begun.
    """

    cure: ClassVar[str] = "put the old ones back"

    @abstractmethod
    def recognises(self, name: str) -> bool:
        """Is it the name of a model of this source, whether or not there is one?"""

    @abstractmethod
    def check(self, name: str, key: str) -> None:
        """Refuses a name that cannot be a model, before anything is downloaded.

        Raises:
            SpecError: naming `key`, the model's place in the spec.
        """

    def is_on_hub(self, name: str) -> bool:
        """Are the model's weights on the hub, and perhaps not on this machine yet?"""
        return False

    @abstractmethod
    def location(self, name: str) -> Location:
        """Where transformers finds the model's configuration; nothing is downloaded."""

    def has_pipeline(self, name: str) -> bool:
        """Is the model a pipeline of diffusers?"""
        return is_pipeline(Path(self.location(name)[0]))

    def small_files(self, name: str) -> Path:
        """A local folder with a pipeline's files, at least those that are no weights.

        Raises:
            SpecError: they cannot be had.
        """
        return self.folder(name)

    def tokenizer_location(self, name: str) -> Location:
        """Where transformers finds the model's tokenizer."""
        return self.location(name)

    @abstractmethod
    def folder(self, name: str) -> Path:
        """A local folder with the whole checkpoint: downloaded, merged or copied if need be.

        Raises:
            SpecError: the model cannot be had, or is no checkpoint with safetensors weights.
        """

    def config(self, config: "PretrainedConfig", name: str, key: str) -> "PretrainedConfig":
        """The model's configuration, from the one that is at its `location`.

        Raises:
            SpecError: naming `key`: its parts do not fit each other.
        """
        return config

    def fingerprint(self, name: str) -> Fingerprint:
        """SHA-256 of the model's files.

        Raises:
            SpecError: the model cannot be had.
            EvomergeError: a file cannot be read.
        """
        return fingerprint(self.folder(name))

    def mergekit_name(self, name: str) -> str:
        """The model as plain mergekit finds it, which knows neither the zoo nor `~`."""
        return str(self.folder(name))


@dataclass(frozen=True)
class Content:
    """What lies in a model's folder: which files are downloaded, and what checks them.

    Args:
        check: refuses a folder without the files; the second argument begins its message.
    """

    files: tuple[str, ...]
    check: Callable[[Path, str], None]


def is_path(name: str) -> bool:
    """Is it the path of a folder, or of a file of weights, and no hub id?"""
    # os.path, since pathlib raises for a name that is too long.
    begins_as_one = name.startswith(("/", "./", "../", "~")) or name.endswith(".safetensors")
    return begins_as_one or os.path.isdir(name)


def _check_checkpoint(folder: Path, where: str) -> None:
    if is_pipeline(folder):
        check_pipeline(folder, where)
        for place in checkpoint_folders(folder):
            check_index(place, f"{where}: {place.name}")
        return
    if not (folder / "config.json").is_file():
        raise SpecError(
            f"{where} has neither a config.json nor a model_index.json, so it is neither a "
            "checkpoint nor a pipeline"
        )
    if not weight_files(folder):
        raise SpecError(
            f"{where} has no *.safetensors weights by transformers' names; pickled ones are "
            "refused because they can run code. Convert them with save_pretrained"
        )
    check_index(folder, where)


# Everything a checkpoint needs but pickled weights, which can run code when they are loaded.
CHECKPOINT = Content(("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"), _check_checkpoint)
ADAPTER = Content((ADAPTER_CONFIG, ADAPTER_WEIGHTS, *TOKENIZER_FILES), check_adapter_files)
