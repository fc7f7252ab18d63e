"""Which tensors a model has: those of its class in transformers, as they are in memory."""

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.pipeline_part import PART, layers_of, tensors_on_meta
from evomerge_optuna.models.shards import weight_files
from evomerge_optuna.models.transformers_internals import names_in_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Layout:
    """The parameters and persistent buffers of a model, in the order of its modules.

    Args:
        names: as in its state dict, without those that are tied to another.
        tied: by name the tensor that it is tied to.
        vocabulary: names of the tensors that have a row for each token.
        layers: the layer of every tensor of one; None: their names tell it.
    """

    names: tuple[str, ...]
    tied: Mapping[str, str]
    vocabulary: frozenset[str]
    layers: Mapping[str, int] | None = None


def meta_model(config: "PretrainedConfig", key: str) -> Any:
    """A causal language model of this configuration on the meta device: nothing is allocated.

    Raises:
        SpecError: naming `key`: there is no model of this configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        # Every architecture has its own demands on a configuration, and its own errors.
        reason = one_line(error) or type(error).__name__
        raise SpecError(
            f"{key}: its configuration gives no model: {reason}; correct its config.json"
        ) from error


def layout_of(config: "PretrainedConfig", tied: bool | None = None) -> Layout:
    """The layout of a model of this configuration.

    Args:
        tied: are input and output embeddings one tensor? As the configuration says unless given.

    Raises:
        SpecError: there is no model of this configuration.
    """
    if tied is not None:
        config = copy.deepcopy(config)
        config.tie_word_embeddings = tied
    return _layout(_Known(config))


@dataclass(frozen=True)
class _Known:
    """A configuration by its content, so that what is found of it can be kept."""

    config: Any = field(compare=False)
    content: str = ""

    def __post_init__(self) -> None:
        content = json.dumps(self.config.to_dict(), sort_keys=True, default=str)
        object.__setattr__(self, "content", f"{type(self.config).__name__} {content}")


@lru_cache(maxsize=32)
def _layout(known: _Known) -> Layout:
    if known.config.model_type == PART:
        names = tuple(tensors_on_meta(known.config))
        return Layout(names, {}, frozenset(), layers_of(list(names)))
    model = meta_model(known.config, "config.json")
    tied = dict(model.all_tied_weights_keys)
    embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
    rows = {id(tensor) for part in embeddings if part is not None for tensor in part.parameters()}
    parameters = model.named_parameters(remove_duplicate=False)
    return Layout(
        names=tuple(name for name in model.state_dict() if name not in tied),
        tied=tied,
        vocabulary=frozenset(name for name, tensor in parameters if id(tensor) in rows),
    )


def other_names(config: "PretrainedConfig", files: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """By a tensor's name in memory its names in these files, where transformers renames it.

    Only those that it takes over as they are; experts that are joined have no such name.
    """
    if config.model_type == PART:
        return {}
    return _other_names(_Known(config), names_in(files))


@lru_cache(maxsize=32)
def _other_names(known: _Known, in_files: frozenset[str]) -> dict[str, tuple[str, ...]]:
    model = meta_model(known.config, "config.json")
    others = sorted(in_files - model.state_dict().keys())
    found: dict[str, tuple[str, ...]] = {}
    for name, new in names_in_memory(model, others).items():
        found[new] = (*found.get(new, ()), name)
    return found


def names_in(files: Iterable[Path]) -> frozenset[str]:
    """The names of all tensors in these files."""
    return frozenset[str]().union(*(_names_in(path, _changed(path)) for path in files))


def is_tied(folder: Path, config: "PretrainedConfig") -> bool:
    """Does a checkpoint's head share its embeddings?

    Not where its files hold two that differ: transformers 5 keeps both, whatever the configuration
    says.
    """
    if not getattr(config, "tie_word_embeddings", False):
        return False
    files = tuple((path, _changed(path)) for path in weight_files(folder))
    return not any(_differ(files, *pair) for pair in layout_of(config).tied.items())


@lru_cache(maxsize=256)
def _differ(files: tuple[tuple[Path, float], ...], one: str, other: str) -> bool:
    import torch
    from safetensors import safe_open

    found: list[torch.Tensor] = []
    for path, changed in files:
        wanted = _names_in(path, changed) & {one, other}
        with safe_open(path, framework="pt") as file:
            found += [file.get_tensor(name) for name in wanted]
    return len(found) == 2 and not torch.equal(*found)


@lru_cache(maxsize=1024)
def _names_in(path: Path, changed: float) -> frozenset[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return frozenset(file.keys())


def _changed(path: Path) -> float:
    return path.stat().st_mtime
