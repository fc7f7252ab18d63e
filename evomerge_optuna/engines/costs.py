"""What a model costs to run, whatever the machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


def model_costs(model: "PreTrainedModel") -> dict[str, float]:
    """Layers, parameters, and floating-point operations per token of a language model.

    Parameters are counted as they are stored: a layer that a stack passes twice counts twice.
    Operations are 2 for each weight that a token is multiplied by (Kaplan et al. 2020, section
    2.1), so embeddings, which are looked up, count none; attention over the context is left out,
    and so is the work on an image.
    """
    stored, decoder = _stored(model), _stored(model.get_decoder())
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    multiplied = decoder - embeddings.numel() + head.numel()
    return {
        "layers": model.config.get_text_config().num_hidden_layers,
        "parameters": stored - (head.numel() if head is embeddings else 0),
        "flops_per_token": 2 * multiplied,
    }


def cache_per_token(config: "PretrainedConfig", itemsize: int) -> int:
    """Bytes that the keys and values of a token take in all layers of a language model.

    Args:
        config: of the language model.
        itemsize: bytes of a number, in the dtype in which the model runs.
    """
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * groups * width * itemsize)


def _stored(module: "torch.nn.Module") -> int:
    return sum(p.numel() for _, p in module.named_parameters(remove_duplicate=False))
