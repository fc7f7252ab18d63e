"""What a stack of layers needs to know of an architecture: where its layers and norms are."""

from dataclasses import dataclass, replace

from evomerge_optuna.errors import SpecError


@dataclass(frozen=True)
class StackNames:
    """Names of modules in a causal language model, those of a layer relative to the layer.

    Args:
        layers: the list of decoder layers.
        embeddings: modules before the first layer.
        final_norm: the norm after the last layer.
        inner: norms through which a layer reads the residual stream.
        outer: modules whose output a layer adds to the residual stream.
        offset: a norm multiplies by `offset + weight`.
        norm_bias: a norm adds a bias.
    """

    layers: str
    embeddings: tuple[str, ...]
    final_norm: str
    inner: tuple[str, str]
    outer: tuple[str, str]
    offset: int = 0
    norm_bias: bool = False


_LLAMA = StackNames(
    layers="model.layers",
    embeddings=("model.embed_tokens",),
    final_norm="model.norm",
    inner=("input_layernorm", "post_attention_layernorm"),
    outer=("self_attn.o_proj", "mlp.down_proj"),
)
_GEMMA = replace(
    _LLAMA,
    inner=("input_layernorm", "pre_feedforward_layernorm"),
    outer=("post_attention_layernorm", "post_feedforward_layernorm"),
    offset=1,
)
_GPT2 = StackNames(
    layers="transformer.h",
    embeddings=("transformer.wte", "transformer.wpe"),
    final_norm="transformer.ln_f",
    inner=("ln_1", "ln_2"),
    outer=("attn.c_proj", "mlp.c_proj"),
    norm_bias=True,
)
STACKABLE = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": _GPT2,
}


def stack_names(model_type: str, key: str) -> StackNames:
    """The names of an architecture whose layers can be stacked and folded.

    Raises:
        SpecError: it is not among them.
    """
    if model_type not in STACKABLE:
        raise SpecError(
            f"{key}: layers of {model_type} cannot be stacked; those of {', '.join(STACKABLE)} can"
        )
    return STACKABLE[model_type]
