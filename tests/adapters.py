"""Real adapters of peft on tiny models of several architectures, random in both halves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tests.conftest import save_tiny_model

_SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
_GPT2 = {
    "vocab_size": 19,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
# Of each kind of model its configuration, and modules that adapters change.
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "llama": (_SMALL, ["q_proj", "v_proj", "down_proj", "embed_tokens", "lm_head"]),
    "gpt2": (_GPT2, ["c_attn", "c_fc", "wte"]),
    "qwen2": (_SMALL, ["q_proj", "k_proj", "gate_proj"]),  # with biases, tied
    "mistral": (_SMALL, ["o_proj", "up_proj"]),
    "qwen3": (_SMALL, ["q_proj", "up_proj"]),
    "phi3": (
        {key: value for key, value in _SMALL.items() if key != "head_dim"},
        ["qkv_proj", "gate_up_proj"],
    ),
    "gpt_neox": (
        {k: v for k, v in _SMALL.items() if k not in ("head_dim", "num_key_value_heads")},
        ["query_key_value", "dense_4h_to_h", "embed_in"],
    ),
    "mixtral": (_SMALL | {"num_local_experts": 3, "num_experts_per_tok": 2}, ["q_proj", "v_proj"]),
    "gemma2": (_SMALL, ["q_proj", "down_proj"]),
}


def save_base(folder: Path, kind: str = "llama") -> Path:
    """A random model of a kind, with a tokenizer."""
    save_tiny_model(folder, seed=0)
    config, _ = KINDS[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    model.save_pretrained(folder)
    return folder


def save_lora(folder: Path, base: Path, seed: int, modules: Sequence[str], **settings: Any) -> Path:
    """A LoRA adapter of a base model, in whose modules neither half is zero."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    given = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", **settings}
    config = LoraConfig(target_modules=list(modules), init_lora_weights=False, **given)
    get_peft_model(model, config).save_pretrained(folder)
    return folder
