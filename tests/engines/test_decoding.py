"""Decoding in a table is, on every architecture, what `model.generate` gives each prompt alone."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from evomerge_optuna.engines.decoding import greedy, is_decodable
from evomerge_optuna.merging.stacked import stacked_model
from evomerge_optuna.models.architectures import STACKABLE
from evomerge_optuna.recipes.stack import StackRecipe, Step

VOCABULARY, LAYERS, NEW, WINDOW = 19, 4, 9, 5
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "initializer_range": 0.5,
    "pad_token_id": 0, "eos_token_id": None, "bos_token_id": 2,
}  # fmt: skip
SLIDING = {"sliding_window": WINDOW}
SOME_SLIDING = SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * 2}
OWN = {
    "gpt2": {"n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 64},
    "mistral": SLIDING,
    "phi3": SLIDING,
    "gemma2": SOME_SLIDING,
    "gemma3_text": SOME_SLIDING,
    "qwen2": SOME_SLIDING | {"use_sliding_window": True},
    "qwen3": SOME_SLIDING | {"use_sliding_window": True},
}


def random_model(architecture: str, seed: int, **config: Any) -> Any:
    settings = COMMON | OWN.get(architecture, {}) | config
    if architecture == "gpt2":
        own = ("vocab_size", "initializer_range", "eos_token_id", "bos_token_id")
        settings = {k: v for k, v in settings.items() if k in own or k.startswith("n_")}
    torch.manual_seed(seed)
    chosen = transformers.AutoConfig.for_model(architecture, **settings)
    return AutoModelForCausalLM.from_config(chosen, dtype=torch.float32).eval()


def random_stack(architecture: str, seed: int) -> Any:
    """Layers of two models in another order, one of them twice in a row."""
    models = {name: random_model(architecture, seed + n) for n, name in enumerate("ab")}
    path = [("a", 0), ("b", 3), ("b", 3), ("a", 1), ("b", 2)]
    steps = tuple(Step(model=model, layer=layer, scale=0.9) for model, layer in path)
    recipe = StackRecipe(embeddings="a", steps=steps, head="b")
    return stacked_model(recipe, models, STACKABLE[architecture])


def alone(model: Any, prompt: list[int], eos: int) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=eos
    )
    return output[0, len(prompt) :].tolist()


TOKENS = st.integers(3, VOCABULARY - 1)


@st.composite
def prompts(draw: st.DrawFn) -> list[list[int]]:
    """Of mixed lengths, some shorter than others' padding; all may begin alike."""
    shared = draw(st.lists(TOKENS, max_size=2 * WINDOW))
    own = draw(st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=7))
    return [shared + tokens for tokens in own]


@pytest.mark.parametrize("make", [random_model, random_stack])
@pytest.mark.parametrize("architecture", STACKABLE)
@settings(max_examples=3, derandomize=True, phases=[Phase.generate])
@given(data=st.data())
def test_tokens_are_those_of_each_prompt_alone(
    architecture: str, make: Any, data: st.DataObject
) -> None:
    model = make(architecture, data.draw(st.integers(0, 99)))
    given_prompts, eos = data.draw(prompts()), data.draw(TOKENS)
    assert is_decodable(model, 64)
    size = data.draw(st.integers(1, 4))
    found = greedy(model, given_prompts, NEW, size, lambda text: text[-1] == eos)
    assert found == [alone(model, prompt, eos) for prompt in given_prompts]
