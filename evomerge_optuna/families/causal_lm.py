"""Causal language models of text alone: all of their tensors are merged."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from evomerge_optuna.devices import torch_device
from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.adapters import check_adapters, check_plain_adapters
from evomerge_optuna.families.base import Architecture, Family, Loaded
from evomerge_optuna.families.fit import (
    check_architecture,
    check_dtype,
    check_layer_groups,
    check_not_of_pipelines,
    check_shapes,
    check_stack,
    check_tokenizer,
    check_vocabulary,
    dtype_name,
)
from evomerge_optuna.models.differences import (
    check_same_network,
    configuration_remarks,
    with_another_configuration,
)
from evomerge_optuna.models.files import check_files, check_unquantized
from evomerge_optuna.models.headers import STORED, Header, parameter_shapes
from evomerge_optuna.models.loading import complete_model, load_model
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.models.tokens import check_ids
from evomerge_optuna.models.transformers_internals import causal_language_models
from evomerge_optuna.spec import AdapterStudySpec, MergeSearchSpec, StagedStudySpec, StudySpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class CausalLM(Family):
    """Causal language models of text alone."""

    name: ClassVar[str] = "causal language model"
    kinds: ClassVar[tuple[str, ...]] = ()  # every kind that no other family has
    merged_part: ClassVar[str] = "same tensors"
    pipeline_tag: ClassVar[str] = "text-generation"

    def merged_config(self, model: OpenedModel) -> "PretrainedConfig":
        """The configuration of the part that is merged.

        Raises:
            SpecError: naming the model's key.
        """
        return model.config

    def merged_folder(self, folder: Path, components: Sequence[str] = ()) -> Path:
        return folder

    def merged_headers(
        self, model: OpenedModel, components: Sequence[str] = ()
    ) -> Mapping[str, Header]:
        if model.headers is not None:
            return model.headers
        config = self.merged_config(model)  # the hub does not list the tensors
        dtype = STORED.get(dtype_name(config), "F32")
        shapes = parameter_shapes(config, model.key)
        return {name: Header(shape, dtype) for name, shape in shapes.items()}

    def check_complete(self, model: OpenedModel, components: Sequence[str] = ()) -> None:
        from transformers import AutoModelForCausalLM

        complete_model(AutoModelForCausalLM, model.folder, device_map="meta")  # reads no weight

    def reader(self, model: OpenedModel) -> Reader:
        return Reader(model.tokenizer, positions(model.config))

    def check_reader(self, reader: Reader, folder: Path, name: str, key: str) -> None:
        rows = OpenedModel(str(folder), key).config.get_text_config().vocab_size
        check_ids(reader.tokenizer, rows, name, key)

    def load(self, folder: Path, device: str, dtype: str | None = None) -> Loaded:
        model, tokenizer = load_model(folder, device, dtype)
        return model, Reader(tokenizer, positions(model.config))

    def write_for_others(self, folder: Path) -> None:
        from evomerge_optuna.models.older_form import write_older_form
        from evomerge_optuna.models.saved_form import write_saved_form

        write_saved_form(folder)
        write_older_form(folder)

    def check(self, spec: StudySpec, models: Mapping[str, OpenedModel]) -> Architecture:
        torch_device(spec.evaluation.device)
        if isinstance(spec, AdapterStudySpec):
            check_plain_adapters(models)
        configs = {key: self._checked_config(model) for key, model in models.items()}
        first, *others = configs
        notes = configuration_remarks(spec, configs, self.whose_configuration(spec, first))
        config = configs[first]
        tokenizer = _merged_tokenizer(models[first])
        check_ids(tokenizer, config.vocab_size, models[first].name, first)
        tokens = set(tokenizer.get_vocab())
        for key in others:
            check_architecture(spec, config, configs[key], first, key)
            check_vocabulary(spec, config, configs[key], first, key)
            other = check_tokenizer(spec, tokenizer, configs[key], first, models[key], key)
            tokens |= other.get_vocab().keys() if other else set()
            check_dtype(spec, config, configs[key], first, key)
            check_shapes(config, configs[key], first, key)
        check_same_network(configs)
        for key, model in models.items():
            if not model.is_on_hub:  # else once it is downloaded
                check_files(Path(model.source.location(model.name)[0]), f"{key} ({model.name})")
        self.check_host(spec, models, tokenizer)
        shapes = parameter_shapes(config, first)
        if isinstance(spec, MergeSearchSpec):
            check_not_of_pipelines(spec)
            check_layer_groups(spec.merge, config.num_hidden_layers, shapes)
        if isinstance(spec, AdapterStudySpec):
            notes += check_adapters(spec, models, config.num_hidden_layers)
        if spec.stacking is not None:
            check_stack(spec.stacking, configs)
        union = spec.tokenizer_source == "union"
        return Architecture(
            name=config.architectures[0],
            layers={key: config.num_hidden_layers for key, config in configs.items()},
            parameters=sum(map(prod, shapes.values())),
            remarks=notes,
            others=with_another_configuration(configs),
            dtypes={k: None if c.dtype is None else dtype_name(c) for k, c in configs.items()},
            tokens=(config.vocab_size, len(tokens)) if union else None,
        )

    def whose_configuration(self, spec: StudySpec, first: str) -> str:
        """Whose configuration candidates have, why, and how to choose it.

        Args:
            first: key of the first model.
        """
        if isinstance(spec, MergeSearchSpec) and spec.base_model:
            return f"that of {first}, as mergekit's merges do (name another base_model to choose)"
        if isinstance(spec, StagedStudySpec):
            return f"that of the merge of study '{spec.from_study}', which is its base model's"
        return f"that of {first}, the first model (name another one first to choose)"

    def check_host(
        self,
        spec: StudySpec,
        models: Mapping[str, OpenedModel],
        tokenizer: "PreTrainedTokenizerBase",
    ) -> None:
        """Checks that the study's host can take the merged part.

        Args:
            tokenizer: of the first model, which the merge has unless it unites vocabularies.

        Raises:
            SpecError: naming the host's key.
        """

    def _checked_config(self, model: OpenedModel) -> "PretrainedConfig":
        """The configuration of the merged part, with what the model's adapter changes."""
        config = self.merged_config(model)
        check_unquantized(model.config.to_dict(), f"{model.key}: {model.name}")
        return model.with_adapter(config)


def is_causal_lm(config: "PretrainedConfig") -> bool:
    """Is it the configuration of a causal language model of text alone?"""
    names = config.architectures or []
    # Where text is one modality of several, the layers are those of a part of the model.
    layers = getattr(config, "num_hidden_layers", None)
    causal = len(names) == 1 and names[0] in causal_language_models().values()
    return causal and isinstance(layers, int) and layers >= 1


def _merged_tokenizer(model: OpenedModel) -> "PreTrainedTokenizerBase":
    """The first model's tokenizer, which every merged model takes over."""
    tokenizer = model.tokenizer
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise SpecError(
            f"{model.key}: the tokenizer of {model.name} has neither a padding nor an "
            "end-of-sequence token, so it makes no batches; set one in its tokenizer_config.json"
        )
    return tokenizer
