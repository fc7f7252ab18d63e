"""What a model costs to run, whatever the machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


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


def _stored(module: "torch.nn.Module") -> int:
    return sum(p.numel() for _, p in module.named_parameters(remove_duplicate=False))
