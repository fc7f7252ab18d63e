"""What a proposal needs to know of the models: read from their small files and headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families import family_of
from evomerge_optuna.families.vision_language.text_part import text_config
from evomerge_optuna.models.opened import OpenedModel, OpenedModels
from evomerge_optuna.models.pipelines import PIPELINE
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Kind = Literal["text", "vision", "pipeline"]


@dataclass(frozen=True)
class ModelFacts:
    """What the models of a study have in common, or differ in.

    Attributes:
        kind: "vision" if one of them is a vision-language model.
        layers: of the first model; 0 of pipelines.
        dtypes: that the configurations name.
        one_vocabulary: all have the same tokens in as many rows.
        templates: has each model a chat template? By its key in the spec, the base model first.
        positions: the least of them; None: no bound is known.
        reader: of the first model that has one.
    """

    kind: Kind
    layers: int = 0
    dtypes: frozenset[str] = frozenset()
    one_vocabulary: bool = True
    templates: Mapping[str, bool] | None = None
    positions: int | None = None
    reader: Reader | None = None

    @property
    def has_chat(self) -> bool:
        return any((self.templates or {}).values())

    @property
    def needs_a_template(self) -> bool:
        """Has the merge no chat template of its own, while a source has one?"""
        return self.has_chat and not next(iter((self.templates or {}).values()))


def read_models(names: Mapping[str, str]) -> ModelFacts:
    """Reads configurations and tokenizers.

    Args:
        names: of the models by their keys in the spec, the base model first.

    Raises:
        SpecError: a model does not exist, or its configuration cannot be read.
    """
    models = OpenedModels(names)
    for key, model in models.items():
        model.source.check(model.name, key)
    if any(model.kind == PIPELINE for model in models.values()):
        return ModelFacts("pipeline")
    sees = {key: bool(family_of(model).kept_part) for key, model in models.items()}
    configs = {key: _config(model, sees[key]) for key, model in models.items()}
    readers = {key: reader for key, m in models.items() if (reader := _reader(m)) is not None}
    vocabularies = [reader.tokenizer.get_vocab() for reader in readers.values()]
    rows = {config.vocab_size for config in configs.values()}
    bounds = [bound for config in configs.values() if (bound := positions(config)) is not None]
    first = next(iter(configs.values()))
    return ModelFacts(
        kind="vision" if any(sees.values()) else "text",
        layers=int(first.num_hidden_layers),
        dtypes=frozenset(str(c.dtype).removeprefix("torch.") for c in configs.values() if c.dtype),
        one_vocabulary=len(rows) == 1 and all(v == vocabularies[0] for v in vocabularies[1:]),
        templates={key: bool(key in readers and readers[key].chat_template) for key in names},
        positions=min(bounds, default=None),
        reader=next(iter(readers.values()), None),
    )


def _config(model: OpenedModel, sees: bool) -> "PretrainedConfig":
    config = text_config(model.config, model.key) if sees else model.config
    return config if sees else model.with_adapter(config)


def _reader(model: OpenedModel) -> Reader | None:
    """What a model reads with; a source may be without, and takes that of the base model."""
    try:
        return family_of(model).reader(model)
    except SpecError:
        return None
