"""Models of other architectures than Llama answer in vLLM as in transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.recipes.merge import MergeRecipe
from tests.architectures import tiny_config
from tests.vllm.test_vllm import TRANSFORMERS, VLLM, replies

pytestmark = pytest.mark.vllm

SIZE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
    "head_dim": 32,
    "vocab_size": 259,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}
KINDS: dict[str, dict[str, Any]] = {
    # The attention that transformers takes by default leaves this cap out, and vLLM does not.
    "gemma2": {"query_pre_attn_scalar": 32, "attn_logit_softcapping": None},
    "gemma3_text": {"query_pre_attn_scalar": 32},
    "mistral": {"sliding_window": None},
    "phi3": {},
    "qwen2": {},
    "qwen3": {},
}


def a_tokenizer() -> PreTrainedTokenizerFast:
    """Of bytes, which Qwen2's own class reads, too."""
    names = ["<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def save_model(folder: Path, kind: str, seed: int) -> Path:
    torch.manual_seed(seed)
    config = tiny_config(kind, **SIZE, **KINDS[kind], dtype="float32")
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight") or "bias" in name:  # else they are ones and zeros
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    a_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_merges_one_after_the_other(kind: str, tmp_path: Path) -> None:
    folders = [save_model(tmp_path / str(seed), kind, seed) for seed in range(2)]
    ours, theirs = candidate_builder(VLLM), candidate_builder(TRANSFORMERS)
    for number, weight in enumerate((0.3, 0.8)):
        sources = [
            {"model": str(folder), "parameters": {"weight": share}}
            for folder, share in zip(folders, (weight, 1 - weight), strict=True)
        ]
        recipe = MergeRecipe(configuration={"merge_method": "linear", "models": sources}, seed=0)
        one, other = ours.build(recipe), theirs.build(recipe)
        texts, numbers = replies(one.engine)
        expected, likelihoods = replies(other.engine)
        assert texts == expected
        assert numbers == pytest.approx(likelihoods, abs=1e-3)
        assert write_recipe(recipe, tmp_path / f"export-{number}", "cpu") == one.digest
