"""The tensors of a merge: mergekit's definition of the architecture, completed.

mergekit's definitions leave out what some models of an architecture have (biases of attention and
MLP, norms of queries and keys, experts that only some layers have), require what some have not,
and name some tensors as transformers did once. A merge of such models would have tensors that are
newly initialised. The model's class says what there must be; see `models.layout`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit.architecture import arch_info_for_config
from mergekit.architecture.base import (
    ModelArchitecture,
    ModuleArchitecture,
    ModuleDefinition,
    WeightInfo,
)
from mergekit.architecture.conversion import can_convert_checkpoint_keys
from pydantic import BaseModel
from transformers import PretrainedConfig

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.models.layout import Layout, layout_of, names_in, other_names

_LAYER = re.compile(r"^(.*?)\.(\d+)\.")


class LayerTable(ModuleArchitecture, BaseModel, frozen=True):  # type: ignore[misc]
    """The weights of a model, listed: before its layers, of each layer, and after them."""

    before: tuple[WeightInfo, ...]
    layers: tuple[tuple[WeightInfo, ...], ...]
    after: tuple[WeightInfo, ...]
    layers_key: str

    def pre_weights(self, config: PretrainedConfig) -> list[WeightInfo]:
        return list(self.before)

    def layer_weights(self, index: int, config: PretrainedConfig) -> list[WeightInfo]:
        return list(self.layers[index])

    def post_weights(self, config: PretrainedConfig) -> list[WeightInfo]:
        return list(self.after)

    def num_layers_config_key(self) -> str:
        return self.layers_key

    def num_layers(self, config: PretrainedConfig) -> int:
        return len(self.layers)


def merge_architecture(
    configs: Sequence[PretrainedConfig], files: Iterable[Path], tied: bool
) -> ModelArchitecture:
    """What mergekit is to plan: all tensors of the merged model, and no others.

    mergekit's weights stand in its own order, so that random masks are as it draws them.

    Args:
        configs: of all models; the merged model has the first one's.
        files: with the weights of all models.
        tied: does the merged model's head share its embeddings?

    Raises:
        CandidateError: mergekit has different definitions of the models' architectures.
    """
    found = [arch_info_for_config(config) for config in configs]
    known = found[0] if None not in found else None
    if known is not None and any(other != known for other in found):
        raise CandidateError("the models are of different architectures, which mergekit refuses")
    if known is not None and len(known.modules) != 1:
        known = None
    names = _Names(layout_of(configs[0], tied=True).tied, other_names(configs[0], files))
    table = _table(known, configs[0], layout_of(configs[0], tied), names)
    modules = {"default": ModuleDefinition(architecture=table)}
    if known is None:
        return ModelArchitecture(modules=modules, architectures=[], model_type="")
    return ModelArchitecture(
        modules=modules,
        architectures=known.architectures,
        model_type=known.expected_model_type,
        tagalong_files=known.tagalong_files,
        vocab_size_config_key=known.vocab_size_config_key,
    )


def left_out_by_mergekit(config: PretrainedConfig, files: Iterable[Path], tied: bool) -> list[str]:
    """Tensors of a merged model that plain mergekit does not make.

    Its definition of the architecture lacks them; or it has none, and takes for optional, as
    experts that not all layers have, what is called otherwise in the files.

    Args:
        config: of the merged model.
        files: with the weights of the models.
        tied: see `merge_architecture`.
    """
    layout, known = layout_of(config, tied), arch_info_for_config(config)
    if known is not None:
        planned = {weight.name for weight in known.all_weights(config)}
        return [
            name
            for name in layout.names
            if not can_convert_checkpoint_keys(config.model_type, planned, name)
        ]
    place = _layer_of(layout, None)
    layers: dict[str, set[int | None]] = defaultdict(set)
    for name in layout.names:
        layers[_LAYER.sub(r"\1.*.", name)].add(place(name))
    count = max(map(len, layers.values()), default=0)
    in_files = names_in(files)
    return [
        name
        for name in layout.names
        if place(name) is not None
        and len(layers[_LAYER.sub(r"\1.*.", name)]) < count
        and name not in in_files
    ]


def _table(
    known: ModelArchitecture | None,
    config: PretrainedConfig,
    layout: Layout,
    names: "_Names",
) -> LayerTable:
    before: list[WeightInfo] = []
    after: list[WeightInfo] = []
    layers: dict[int, list[WeightInfo]] = defaultdict(list)
    layers_key = ""
    missing = dict.fromkeys(layout.names)

    def named(weights: Iterable[WeightInfo]) -> list[WeightInfo]:
        found = [weight for weight in weights if weight.name in missing]
        for weight in found:
            del missing[weight.name]
        return [names.give(weight) for weight in found]

    if known is not None:
        (module,) = known.modules.values()
        definition = module.architecture
        layers_key = definition.num_layers_config_key()
        before += named(definition.pre_weights(config))
        for index in range(definition.num_layers(config)):
            layers[index] += named(definition.layer_weights(index, config) or [])
        after += named(definition.post_weights(config))
    place = layout.layers.get if layout.layers else _layer_of(layout, len(layers) or None)
    for name in missing:
        axis = 0 if name in layout.vocabulary else None
        weight = names.give(WeightInfo(name=name, vocabulary_axis=axis))
        if (layer := place(name)) is not None:
            layers[layer].append(weight)
        elif layers:
            after.append(weight)
        else:
            before.append(weight)
    return LayerTable(
        before=tuple(before),
        layers=tuple(tuple(layers[index]) for index in sorted(layers)),
        after=tuple(after),
        layers_key=layers_key,
    )


@dataclass(frozen=True)
class _Names:
    """Where a tensor is found in files that call it otherwise.

    Args:
        tied: in a model whose embeddings are tied, the tensor that it shares.
        others: names that transformers changes when it loads a file.
    """

    tied: Mapping[str, str]
    others: Mapping[str, tuple[str, ...]]

    def give(self, weight: WeightInfo) -> WeightInfo:
        """The weight as one that must be there, with all its names."""
        aliases = dict.fromkeys([*(weight.aliases or ()), *self.others.get(weight.name, ())])
        shared = [*(weight.tied_names or ()), self.tied.get(weight.name, "")]
        return weight.model_copy(
            update={
                "optional": False,
                "aliases": tuple(aliases) or None,
                "tied_names": tuple(dict.fromkeys(filter(None, shared))) or None,
            }
        )


def _layer_of(layout: Layout, count: int | None) -> Callable[[str], int | None]:
    """The layer that a tensor of this name belongs to, None where it is of no layer.

    Args:
        count: of layers; unless given, the longest list of modules is that of the layers.
    """
    sizes: dict[str, int] = defaultdict(int)
    for name in layout.names:
        if found := _LAYER.match(name):
            sizes[found[1]] = max(sizes[found[1]], int(found[2]) + 1)
    most = count or max(sizes.values(), default=0)

    def place(name: str) -> int | None:
        found = _LAYER.match(name)
        return int(found[2]) if found and sizes[found[1]] == most else None

    return place
