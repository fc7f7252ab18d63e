"""A model with an adapter, as mergekit writes it: `MODEL+ADAPTER`, each of another source."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.adapted import merged_folder
from evomerge_optuna.models.adapters import config_with_adapter, has_tokenizer, split_adapter
from evomerge_optuna.models.fingerprint import Fingerprint, fingerprint
from evomerge_optuna.models.sources.base import ADAPTER, Location, Source
from evomerge_optuna.models.sources.hub import HubSource
from evomerge_optuna.models.sources.path import PathSource
from evomerge_optuna.spec.single_file import split_single_file

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ADAPTERS = (PathSource(ADAPTER), HubSource(ADAPTER))


class AdaptedSource(Source):
    """Pairs of a base model and an adapter.

    Args:
        bases: the sources of base models; the first that recognises a name gives it.
    """

    def __init__(self, bases: tuple[Source, ...]) -> None:
        self._bases = bases

    def recognises(self, name: str) -> bool:
        return "+" in name

    def check(self, name: str, key: str) -> None:
        file, _ = split_single_file(name)
        if os.path.exists(os.path.expanduser(file)):
            raise SpecError(
                f"{key}: {file}: what follows '+' is the name of an adapter; rename the folder or "
                "the file"
            )
        base, adapter = _split(name)
        self._base(base).check(base, key)
        if not base or not adapter or "+" in adapter:
            raise SpecError(f"{key}: {name}: write a model and one adapter, as MODEL+ADAPTER")
        _source_of(adapter).check(adapter, key)

    def is_on_hub(self, name: str) -> bool:
        base, _ = _split(name)
        return self._base(base).is_on_hub(base)

    def location(self, name: str) -> Location:
        base, _ = _split(name)
        return self._base(base).location(base)

    def has_pipeline(self, name: str) -> bool:
        base, _ = _split(name)
        return self._base(base).has_pipeline(base)

    def tokenizer_location(self, name: str) -> Location:
        """The adapter's folder if a tokenizer lies there, else the base model's."""
        if has_tokenizer(folder := adapter_folder(name)):
            return str(folder), None
        return self.location(name)

    def folder(self, name: str) -> Path:
        return merged_folder(self._base_folder(name), adapter_folder(name), name)

    def config(self, config: "PretrainedConfig", name: str, key: str) -> "PretrainedConfig":
        _, adapter = _split(name)
        return config_with_adapter(config, adapter_folder(name), f"{key}: {adapter}")

    def fingerprint(self, name: str) -> Fingerprint:
        return fingerprint(self._base_folder(name), adapter_folder(name))

    def mergekit_name(self, name: str) -> str:
        base, adapter = _split(name)
        return (
            f"{self._base(base).mergekit_name(base)}+{_source_of(adapter).mergekit_name(adapter)}"
        )

    def _base(self, base: str) -> Source:
        return next(source for source in self._bases if source.recognises(base))

    def _base_folder(self, name: str) -> Path:
        base, _ = _split(name)
        return self._base(base).folder(base)


def _split(name: str) -> tuple[str, str]:
    base, adapter = split_adapter(name)
    return base, adapter or ""


def _source_of(adapter: str) -> Source:
    return next(source for source in _ADAPTERS if source.recognises(adapter))


def adapter_folder(name: str) -> Path:
    """The local folder of the adapter of `MODEL+ADAPTER`, which is downloaded if need be.

    Raises:
        SpecError: it cannot be had.
    """
    _, adapter = _split(name)
    return _source_of(adapter).folder(adapter)
