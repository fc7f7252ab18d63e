"""A model by its name, each of its files read once: configuration, tokenizer, processor, folder."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.models.fingerprint import Fingerprint
from evomerge_optuna.models.pipelines import PIPELINE
from evomerge_optuna.models.sources import source_of
from evomerge_optuna.models.sources.hub import not_on_hub
from evomerge_optuna.zoo.pictures import require_pillow

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

    from evomerge_optuna.models.headers import Header

_NAME_ONE = "name a model with its tokenizer files, such as tokenizer.json"


class OpenedModel:
    """A model by its name. What is asked of it is read when it is first asked for, and kept.

    Whoever changes a configuration or a tokenizer changes a copy.

    Args:
        name: a hub id, a folder, `zoo:NAME`, or one of these with `+ADAPTER`.
        key: the model's place in the spec, named in errors; its name where there is no spec.
    """

    def __init__(self, name: str, key: str | None = None) -> None:
        self.name = name
        self.key = key or name
        self.source = source_of(name)

    @cached_property
    def is_on_hub(self) -> bool:
        """Are its weights on the hub, and perhaps not on this machine yet?"""
        return self.source.is_on_hub(self.name)

    @cached_property
    def kind(self) -> str:
        """The `model_type` of its config.json; of a pipeline of diffusers, `PIPELINE`.

        Raises:
            SpecError: the model does not exist, or its configuration cannot be read.
        """
        self.source.check(self.name, self.key)
        if self.source.has_pipeline(self.name):
            return PIPELINE
        return str(self.config.model_type)

    @cached_property
    def config(self) -> "PretrainedConfig":
        """Its config.json; of a model with an adapter that of the base model.

        Raises:
            SpecError: the model does not exist, or its configuration cannot be read.
        """
        from transformers import AutoConfig

        self.source.check(self.name, self.key)
        place, revision = self.source.location(self.name)
        try:
            return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
        except Exception as error:
            # A corrupt file, an unknown architecture and an absent repository raise alike here.
            raise SpecError(f"{self.key}: {self._why_unreadable(error)}") from error

    def with_adapter(self, config: "PretrainedConfig") -> "PretrainedConfig":
        """A configuration of it with what its adapter changes, if it has one.

        Raises:
            SpecError: the adapter does not fit; see `config_with_adapter`.
        """
        return self.source.config(config, self.name, self.key)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Its tokenizer, from its own files; of a model with an adapter the adapter's, if any.

        Raises:
            SpecError: it has no tokenizer that can be read.
        """
        found = self._tokenizer_or_error
        if isinstance(found, SpecError):
            raise found
        # Where there are no files, some classes make a tokenizer of special tokens alone.
        if found.get_vocab().keys() <= set(found.all_special_tokens):
            raise SpecError(f"{self.key}: {self.name} has no tokenizer; {_NAME_ONE}")
        return found

    @property
    def any_tokenizer(self) -> "PreTrainedTokenizerBase | None":
        """What transformers gives for its tokenizer, if only of special tokens; None: nothing."""
        found = self._tokenizer_or_error
        return None if isinstance(found, SpecError) else found

    @cached_property
    def processor(self) -> "ProcessorMixin":
        """A vision-language model's processor, which makes inputs of text and images.

        Raises:
            SpecError: it has none that can be read, or Pillow is not installed.
        """
        from transformers import AutoProcessor

        require_pillow()
        place, revision = self.source.location(self.name)
        try:
            return AutoProcessor.from_pretrained(place, revision=revision, trust_remote_code=False)
        except Exception as error:
            raise SpecError(
                f"{self.key}: the processor of {self.name} cannot be read: {first_line(error)}; "
                "name a model with its processor files, such as preprocessor_config.json"
            ) from error

    @cached_property
    def headers(self) -> "Mapping[str, Header] | None":
        """Every tensor of its files by name; None where the hub has them and does not list them.

        No weight is downloaded. A model with an adapter has the tensors of its base model.

        Raises:
            SpecError: a file cannot be read, or a tensor on the hub is quantized.
        """
        from evomerge_optuna.models.headers import headers_in, headers_on_hub

        place, revision = self.source.location(self.name)
        if self.is_on_hub:
            return headers_on_hub(place, revision, f"{self.key} ({self.name})")
        return headers_in(Path(place), f"{self.key} ({self.name})")

    @cached_property
    def small_files(self) -> Path:
        """A local folder with all of a pipeline's files but its weights.

        Raises:
            SpecError: the hub does not give them.
        """
        self.source.check(self.name, self.key)
        return self.source.small_files(self.name)

    @cached_property
    def folder(self) -> Path:
        """A local folder with its checkpoint: downloaded, merged or copied if need be.

        Raises:
            SpecError: the model cannot be had, has no safetensors weights, or its adapter does not
                fit.
        """
        self.source.check(self.name, self.name)
        return self.source.folder(self.name)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """SHA-256 of its files, and of its adapter's.

        Raises:
            SpecError: the model cannot be had.
            EvomergeError: a file cannot be read.
        """
        self.source.check(self.name, self.name)
        return self.source.fingerprint(self.name)

    @cached_property
    def _tokenizer_or_error(self) -> "PreTrainedTokenizerBase | SpecError":
        from transformers import AutoTokenizer

        place, revision = self.source.tokenizer_location(self.name)
        # Which transformers would read again to find the tokenizer's class.
        beside = (place, revision) == self.source.location(self.name)
        known = self.__dict__.get("config") if beside else None
        try:
            return AutoTokenizer.from_pretrained(
                place, revision=revision, trust_remote_code=False, config=known
            )
        except Exception as error:
            return SpecError(
                f"{self.key}: the tokenizer of {self.name} cannot be read: {first_line(error)}; "
                f"{_NAME_ONE}"
            )

    def _why_unreadable(self, error: Exception) -> str:
        if not self.is_on_hub:
            return f"{self.name}: its configuration cannot be read: {first_line(error)}"
        return not_on_hub(self.name, error)


OpenModel = Callable[[str], OpenedModel]  # by its name


class OpenedModels(Mapping[str, OpenedModel]):
    """The models of a study by their keys in its spec; keys with one model share it.

    Args:
        names: of the models, by their keys in the spec.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._named: dict[str, OpenedModel] = {}
        for key, name in names.items():
            self._named.setdefault(name, OpenedModel(name, key))
        self._names = dict(names)

    def __getitem__(self, key: str) -> OpenedModel:
        return self._named[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def named(self, name: str) -> OpenedModel:
        """The model of this name; one that the spec does not name is opened, too."""
        return self._named.setdefault(name, OpenedModel(name))
