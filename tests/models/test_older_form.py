"""Exports are read by transformers 4, and so by what still has its form, as they are by 5."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.models.older_form import older_config, older_tokenizer, write_older_form
from evomerge_optuna.models.saved_form import write_saved_form
from tests.architectures import a_merge, a_tokenizer, save_two

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 250000.0}
CHOSEN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_parameters": LLAMA3, "attention_bias": True}),
    "tied": ("llama", {"rope_parameters": PLAIN, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"rope_parameters": PLAIN, "sliding_window": 8}),
    "qwen3": ("qwen3", {"rope_parameters": PLAIN}),
    "phi3": ("phi3", {"rope_parameters": PLAIN}),
    "gemma3": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 300000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
            }
        },
    ),
    "neox": ("gpt_neox", {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}}),
    "mixtral": ("mixtral", {"rope_parameters": PLAIN}),
    "qwen3_moe": ("qwen3_moe", {"rope_parameters": PLAIN}),
    "gpt2": ("gpt2", {}),
}
IDS = torch.arange(40)[None] + 4
READ = """
import sys, torch, transformers
from pathlib import Path
assert transformers.__version__.startswith("4."), transformers.__version__
for folder in map(Path, sys.argv[1:]):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), (folder, info)
    with torch.no_grad():
        torch.save(model.eval()(input_ids=torch.arange(40)[None] + 4).logits, folder / "logits.pt")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("w3 w5").input_ids == [7, 9], folder
    assert "<tool>" in tokenizer.all_special_tokens, folder
"""


@pytest.mark.slow
def test_transformers_4_reads_the_same_models(tmp_path: Path) -> None:
    """The real one, which `make test-slow` installs beside the environment."""
    older = Path(sys.prefix) / "transformers4"
    assert older.is_dir(), "make test-slow installs transformers 4 there"
    folders = []
    for name, (model_type, options) in CHOSEN.items():
        a, b = save_two(model_type, tmp_path / name, **options)
        tokenizer = a_tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": ["w295", "<tool>"]})
        for folder in (a, b):
            tokenizer.save_pretrained(folder)
        write_recipe(a_merge(a, b), out := tmp_path / name / "out", "cpu")
        write_saved_form(out)
        write_older_form(out)
        folders.append(out)
    environment = {**os.environ, "PYTHONPATH": str(older), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", READ, *map(str, folders)]
    subprocess.run(command, env=environment, check=True)
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            wanted = model(input_ids=IDS).logits
        found = torch.load(folder / "logits.pt")
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, msg=str(folder))


@pytest.mark.parametrize("name", CHOSEN)
def test_transformers_5_reads_on_as_before(tmp_path: Path, name: str) -> None:
    model_type, options = CHOSEN[name]
    a, _ = save_two(model_type, tmp_path, **options)
    before = AutoConfig.from_pretrained(a).to_dict()
    vocabulary = AutoTokenizer.from_pretrained(a).get_vocab()
    write_older_form(a)
    after = AutoConfig.from_pretrained(a).to_dict()
    assert {key: after[key] for key in before} == before
    assert AutoTokenizer.from_pretrained(a).get_vocab() == vocabulary
    content = json.loads((a / "config.json").read_text())
    assert content["torch_dtype"] == content["dtype"]


def test_rope_in_its_older_form() -> None:
    found = older_config({"rope_parameters": LLAMA3})
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    assert (found["rope_theta"], found["rope_scaling"]) == (500000.0, scaling)
    assert older_config({"rope_parameters": PLAIN})["rope_scaling"] is None
    inner = older_config({"text_config": {"rope_parameters": PLAIN, "dtype": "bfloat16"}})
    assert inner["text_config"]["rope_theta"] == 250000.0
    assert inner["text_config"]["torch_dtype"] == "bfloat16"


def test_a_tokenizer_in_its_older_form() -> None:
    newer = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<tool>"]}
    older = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<tool>"],
    }
    assert older_tokenizer(newer) == older
    assert older_tokenizer({"tokenizer_class": "LlamaTokenizer"}) == {
        "tokenizer_class": "LlamaTokenizer"
    }
