"""What is taken of transformers beyond its documented interface is there, and does what it should.

What each function is for is tested where it is used, in decoding and layouts among others.
"""

from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from evomerge_optuna.models.transformers_internals import (
    READ_IN,
    as_saved,
    cache_states,
    causal_language_models,
    change_cache,
    chat_template_clock,
    has_movable_states,
    join_caches,
    names_in_memory,
    set_attention_like,
)

CHAT = [{"role": "user", "content": "a"}]
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 20,
}


def test_it_was_read_beside_the_version_that_is_installed() -> None:
    """Where this fails, read the module beside the new version, then add it to READ_IN."""
    assert version("transformers") in READ_IN


def test_classes() -> None:
    assert causal_language_models()["llama"] == LlamaForCausalLM.__name__


def test_attention() -> None:
    eager, other = LlamaConfig(attn_implementation="eager"), LlamaConfig()
    set_attention_like(other, eager)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    set_attention_like(model.config, other)
    assert model.config._attn_implementation == "eager"


def test_names_in_files_and_in_memory(tmp_path: Path) -> None:
    """Experts are joined in memory, so that their files' names stand for none."""
    model = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=2))
    model.save_pretrained(tmp_path)
    saved = as_saved(model, model.state_dict())
    assert any("experts.1." in name for name in saved)
    found = names_in_memory(model, saved)
    kept = [name for name in saved if "experts" not in name]
    assert set(kept) <= set(found) and set(found.values()) <= set(model.state_dict())
    assert all(torch.equal(saved[name], model.state_dict()[found[name]]) for name in kept)


def test_the_clock_of_chat_templates(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}"
    with chat_template_clock(datetime(2001, 2, 3)):
        assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "2001-02-03"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) != "2001-02-03"


def test_keys_and_values_are_moved() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    one, other = DynamicCache(config=model.config), DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=one)
        model(input_ids=torch.tensor([[4, 5, 6]]), past_key_values=other)
    assert has_movable_states(one)
    before = [keys for keys, _ in cache_states(one)]
    join_caches(one, other, lambda mine, its: torch.cat([mine, its]))
    assert [keys.shape[0] for keys, _ in cache_states(one)] == [2, 2]
    change_cache(one, lambda states: states[:1])
    assert all(map(torch.equal, before, (keys for keys, _ in cache_states(one))))
    with torch.inference_mode():
        after = model(input_ids=torch.tensor([[7]]), past_key_values=one).logits[0, -1]
        whole = model(input_ids=torch.tensor([[1, 2, 3, 7]])).logits[0, -1]
    assert torch.allclose(after, whole, atol=1e-5)
