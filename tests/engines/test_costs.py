"""What a model costs: counted, not measured."""

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM, MistralConfig

from evomerge_optuna.engines.costs import cache_per_token, model_costs


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


def test_keys_and_values_of_a_token() -> None:
    mistral = MistralConfig()
    assert cache_per_token(mistral, 2) == 32 * 2 * 8 * 128 * 2
    gpt2 = GPT2Config()
    assert cache_per_token(gpt2, 4) == 12 * 2 * 768 * 4
