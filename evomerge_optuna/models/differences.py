"""What the models' configurations say differently, and which of them a merge has.

Tensors of one shape may be meant for other positions, windows or multipliers. Decided by exclusion:
whatever the class of the configuration knows counts, but for what is known not to matter.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import StudySpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_IGNORED = re.compile(
    # what it is called and was made with
    r"_name_or_path|architectures|model_type|transformers_version|torch_dtype|dtype|auto_map"
    r"|_attn_implementation.*|problem_type|task_specific_params|id2label|label2id|num_labels"
    # training alone
    r"|.*dropout.*|.*_pdrop|initializer_.*|init_.*|router_.*_loss_coef|router_aux_loss_coef"
    r"|router_jitter_noise|jitter_noise|aux_loss_alpha|z_loss.*|gradient_checkpointing"
    # how outputs are returned, and how they are computed where the result is the same
    r"|output_.*|return_dict|use_return_dict|use_cache|chunk_size_feed_forward|pretraining_tp"
    r"|summary_.*|slow_but_exact|reorder_and_upcast_attn"
    # checked or decided elsewhere: tokens, sizes, and ties, which the tensors decide
    r"|.*token_id|.*token_ids|vocab_size|tie_word_embeddings|num_hidden_layers|n_layer|n_layers"
    # which `layer_types` says for each layer
    r"|max_window_layers|use_sliding_window"
)
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
# Another network on the same tensors; no merge of the two computes anything.
_OTHER_NETWORK = (
    *("alibi", "position_embedding_type", "parallel_attn", "use_parallel_residual"),
    *("parallel_residual", "apply_residual_connection_post_layernorm", "use_qk_norm"),
)
_POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Difference:
    """What the models have for a key of their configurations, by their keys in the spec."""

    name: str
    values: Mapping[str, object]

    @property
    def differ(self) -> bool:
        first, *others = self.values.values()
        return any(value != first for value in others)

    def __str__(self) -> str:
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        limit = " (no computation depends on it but how long texts may be)"
        return f"{self.name}: {values}{limit if self.name in _POSITIONS else ''}"


def differences(configs: Mapping[str, "PretrainedConfig"]) -> list[Difference]:
    """The keys on which models' answers depend and in which their configurations differ.

    Args:
        configs: of models of one architecture, by their keys in the spec.
    """
    flat = {key: dict(_flat(_known(config))) for key, config in configs.items()}
    names = dict.fromkeys(name for found in flat.values() for name in found)
    every = [
        Difference(name, {key: found.get(name) for key, found in flat.items()}) for name in names
    ]
    return [one for one in every if one.differ]


def check_same_network(configs: Mapping[str, "PretrainedConfig"]) -> None:
    """Refuses models whose tensors have the same shapes and another meaning.

    Raises:
        SpecError: naming the model, the key and both values.
    """
    for found in differences(configs):
        (first, want), *others = found.values.items()
        for key, have in others:
            if have != want and _is_another_network(found.name, have, want):
                raise SpecError(
                    f"{key}: {found.name} is {have} in its config.json, but {want} in that of "
                    f"{first}: tensors with another meaning; only models that compute alike can "
                    "be merged"
                )


def check_same_in_a_stack(configs: Mapping[str, "PretrainedConfig"]) -> None:
    """Refuses models whose layers need another configuration than those of the first model.

    What is listed for each layer follows the layers, so that it may differ.

    Raises:
        SpecError: naming the model, the key and both values.
    """
    for found in differences(configs):
        (first, want), *others = found.values.items()
        if found.name in _POSITIONS or isinstance(want, list):
            continue
        for key, have in others:
            if have != want:
                raise SpecError(
                    f"{key}: {found.name} is {have} in its config.json, but {want} in that of "
                    f"{first}; a stack has one for all its layers"
                )


def configuration_remarks(
    spec: StudySpec, configs: Mapping[str, "PretrainedConfig"], whose: str
) -> tuple[str, ...]:
    """A warning where the models' configurations differ, line by line.

    Args:
        whose: names the configuration that candidates have.
    """
    found = differences(configs)
    if spec.any_depth:  # what is listed for each layer follows the layers
        found = [one for one in found if not isinstance(next(iter(one.values.values())), list)]
    if not found:
        return ()
    return (
        f"Warning: the models' configurations differ; candidates have {whose}",
        *(f"  {difference}" for difference in found),
    )


def with_another_configuration(configs: Mapping[str, "PretrainedConfig"]) -> tuple[str, ...]:
    """The models that answer otherwise with the configuration of the first, which merges have."""
    first, *others = configs
    return tuple(
        key
        for key in others
        if any(
            found.name not in _POSITIONS
            for found in differences({first: configs[first], key: configs[key]})
        )
    )


def _known(config: "PretrainedConfig") -> dict[str, object]:
    """What the class of a configuration knows; a model reads nothing else."""
    content: dict[str, object] = config.to_dict()
    if "head_dim" in content and content["head_dim"] is None:  # as models take it
        content["head_dim"] = config.hidden_size // config.num_attention_heads
    try:
        known = type(config)().to_dict()
    except Exception:  # a class may have no configuration without arguments
        return content
    return {name: value for name, value in content.items() if name in known}


def _flat(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if _IGNORED.fullmatch(name) or (name == "type" and "rope_type" in content):  # its old name
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_another_network(name: str, have: object, want: object) -> bool:
    if name in _ACTIVATIONS:  # those of one family approximate each other
        return not all("gelu" in str(value) for value in (have, want))
    return name in _OTHER_NETWORK
