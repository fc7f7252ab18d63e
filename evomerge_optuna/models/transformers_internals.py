"""All that is taken of transformers beyond its documented interface.

An upgrade of transformers is a matter of this module: read each function beside the new version,
run the tests, and add the version to `READ_IN`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PretrainedConfig, PreTrainedModel

READ_IN = ("5.19.0", "5.23.0")  # versions of transformers that this module was read beside

# Each function imports what it needs: some of it takes seconds.


def causal_language_models() -> Mapping[str, str]:
    """The names of the classes of causal language models, by model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # type: ignore[no-any-return]


def set_attention_like(config: "PretrainedConfig", other: "PretrainedConfig") -> None:
    """Gives a configuration the implementation of attention that another one has."""
    config._attn_implementation = other._attn_implementation


def names_in_memory(model: "PreTrainedModel", names: Iterable[str]) -> dict[str, str]:
    """By a tensor's name in a file its name in a loaded model, where it is taken over as it is.

    Args:
        model: may be on the meta device.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    there = model.state_dict()
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    found = {}
    for name in names:
        new, converter = rename_source_key(
            name, renamings, converters, model.base_model_prefix, there
        )
        if converter is None and new in there:
            found[name] = new
    return found


def as_saved(
    model: "PreTrainedModel", tensors: "Mapping[str, torch.Tensor]"
) -> "dict[str, torch.Tensor]":
    """The tensors of a loaded model as `save_pretrained` writes them.

    Args:
        model: of the same class; may be on the meta device.
    """
    from transformers.core_model_loading import revert_weight_conversion

    saved: dict[str, torch.Tensor] = revert_weight_conversion(model, dict(tensors))
    return saved


@contextmanager
def chat_template_clock(now: datetime) -> Iterator[None]:
    """Within the block `strftime_now` of chat templates gives this time."""
    from transformers.utils import chat_template_utils

    # transformers takes no clock from outside, and hides from a template what is no plain value.
    own = chat_template_utils.datetime
    chat_template_utils.datetime = SimpleNamespace(now=lambda: now)
    try:
        yield
    finally:
        chat_template_utils.datetime = own


def has_movable_states(cache: "Cache") -> bool:
    """Has every layer of a cache keys and values, and nothing else?

    They are shaped (sequences, heads, tokens, width).
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return {type(layer) for layer in cache.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}


def cache_states(cache: "Cache") -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """The keys and values of each layer of a cache that `has_movable_states`."""
    return ((layer.keys, layer.values) for layer in cache.layers)


def change_cache(cache: "Cache", change: "Callable[[torch.Tensor], torch.Tensor]") -> None:
    """Puts what `change` makes of them in the place of all keys and values."""
    for layer in cache.layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)


def join_caches(
    cache: "Cache",
    other: "Cache",
    join: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
) -> None:
    """Puts what `join` makes of them and those of another cache in the place of all states."""
    for layer, added in zip(cache.layers, other.layers, strict=True):
        layer.keys = join(layer.keys, added.keys)
        layer.values = join(layer.values, added.values)
