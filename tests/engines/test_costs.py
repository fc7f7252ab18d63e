"""What a model costs: counted, not measured."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge_optuna.engines.costs import model_costs


@pytest.mark.parametrize("tied", [False, True])
def test_costs_of_a_model(tied: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    layer = 4 * 8 * 8 + 3 * 8 * 12 + 2 * 8  # attention, MLP, norms
    body = 3 * layer + 8
    assert model_costs(LlamaForCausalLM(config)) == {
        "layers": 3,
        "parameters": body + 8 * 11 * (1 if tied else 2),
        "flops_per_token": 2 * (body + 8 * 11),  # the head multiplies, tied or not
    }
