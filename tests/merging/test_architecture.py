"""A merge has every tensor of its model's class, whatever mergekit's definition of it leaves out.

Covers `merging/architecture.py`, `merging/check.py`, `models/layout.py` and `models/saved_form.py`.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import IncompleteError, SpecError
from evomerge_optuna.merging.check import check_merge
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.saved_form import write_saved_form
from evomerge_optuna.models.shards import tensor_names
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec
from tests.architectures import TABLE, a_merge, check_merged, save_two, sweep
from tests.engine import merged_of

# What mergekit does not do, one of each kind, and what it does.
CHOSEN: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True}),  # left out
    ("qwen3", {"attention_bias": True}),
    ("phi", {"qk_layernorm": True}),
    ("gemma", {"tie_word_embeddings": False}),  # a head it does not know
    ("phi3", {"tie_word_embeddings": True}),  # a head that it requires
    ("cohere", {}),  # norms that it requires
    ("falcon", {}),
    ("gpt_neox", {}),  # buffers that there were once, a head that files call otherwise
    ("deepseek_v3", {}),  # experts of some layers
    ("nemotron_h", {}),  # layers of several kinds
    ("mixtral", {}),  # experts that files have one by one
    ("glm4_moe", {}),
    ("gpt2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("model_type", "options"), CHOSEN, ids=str)
def test_a_merge_is_the_average_that_transformers_computes(
    tmp_path: Path, model_type: str, options: dict[str, Any]
) -> None:
    check_merged(*save_two(model_type, tmp_path, **options), tmp_path / "out")


@pytest.mark.slow
def test_every_architecture_of_the_page() -> None:
    """As `python -m tests.architectures` has found them; here of each with no switch turned."""
    rows = re.findall(r"^\| (\w+) \| `([\w-]+)` \| (.*?), \d", TABLE.read_text(), re.MULTILINE)
    assert len(rows) > 100
    for name, model_type, how in rows:
        row = sweep(model_type, most=1)
        assert (row.name, row.refused) == (name, "")
        assert row.known == ("mergekit" in how)


def test_tied_and_untied_models_in_one_merge(tmp_path: Path) -> None:
    tied, _ = save_two("qwen2", tmp_path / "tied", tie_word_embeddings=True)
    _, untied = save_two("qwen2", tmp_path / "untied", tie_word_embeddings=False)
    embeddings = "model.embed_tokens.weight"
    one, other = load_file(tied / "model.safetensors"), load_file(untied / "model.safetensors")
    head = 0.5 * one[embeddings] + 0.5 * other["lm_head.weight"]
    for first, second in ((tied, untied), (untied, tied)):
        recipe = a_merge(first, second)
        check_merge(recipe)
        merged = ModelInPlace(ResidentMerger("cpu")).merge(recipe)
        torch.testing.assert_close(merged.model.lm_head.weight, head)
        out = tmp_path / first.parent.name / "out"
        assert write_recipe(recipe, out, "cpu") == merged.digest
        assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
        loaded = complete_model(AutoModelForCausalLM, out)
        torch.testing.assert_close(loaded.lm_head.weight, head)
        assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


def test_a_head_that_is_a_copy_stays_tied(tmp_path: Path) -> None:
    a, b = save_two("llama", tmp_path, tie_word_embeddings=True)
    file = a / "model.safetensors"
    tensors = load_file(file)
    copied = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(tensors | copied, file, metadata={"format": "pt"})
    check_merged(a, b, tmp_path / "out")
    assert "lm_head.weight" not in tensor_names(tmp_path / "out")


def test_a_configuration_that_ties_two_that_differ_is_not_believed(tmp_path: Path) -> None:
    """As transformers 5 loads it, that is; transformers 4 would drop the head."""
    a, b = save_two("llama", tmp_path, tie_word_embeddings=False)
    for folder in (a, b):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    check_merged(a, b, tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )


def test_an_export_has_the_names_of_files_not_those_of_memory(tmp_path: Path) -> None:
    a, b = save_two("mixtral", tmp_path)
    write_recipe(a_merge(a, b), out := tmp_path / "out", "cpu")
    assert "model.layers.0.mlp.experts.gate_up_proj" in tensor_names(out)
    write_saved_form(out)
    assert set(tensor_names(out)) == set(tensor_names(a))


def test_a_stack_of_layers_with_biases(tmp_path: Path) -> None:
    a, b = map(str, save_two("llama", tmp_path, attention_bias=True, mlp_bias=True))
    steps = tuple(Step(model=m, layer=n, scale=w) for m, n, w in ((a, 0, 0.9), (b, 2, -1.1)))
    recipe = StackRecipe(embeddings=a, steps=steps, head=b)
    stacked = merged_of(Builder(EvaluationSpec()).build(recipe)).model
    write_recipe(recipe, tmp_path / "out", "cpu")
    folded = complete_model(AutoModelForCausalLM, tmp_path / "out")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(stacked(ids).logits, folded(ids).logits, rtol=1e-3, atol=1e-3)


def test_a_tensor_that_no_file_has_is_named(tmp_path: Path) -> None:
    a, b = save_two("mixtral", tmp_path)
    file = b / "model.safetensors"
    tensors = load_file(file)
    kept = {name: t for name, t in tensors.items() if "experts" not in name or ".0." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises((SpecError, IncompleteError), match="experts"):
        check_merge(a_merge(a, b))
        complete_model(AutoModelForCausalLM, b, device_map="meta")


def test_what_plain_mergekit_leaves_out_is_told(tmp_path: Path) -> None:
    biased = save_two("llama", tmp_path / "biased", attention_bias=True)
    plain = save_two("llama", tmp_path / "plain")
    (told,) = check_merge(a_merge(*biased))
    assert told.startswith("12 tensors that mergekit leaves out of such models are merged, too")
    assert "model.layers.0.self_attn.q_proj.bias" in told
    assert check_merge(a_merge(*plain)) == []


def test_ends_that_differ_are_told(tmp_path: Path) -> None:
    a, b = save_two("llama", tmp_path)
    settings = json.loads((b / "generation_config.json").read_text())
    (b / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [5, 2]}))
    assert check_merge(a_merge(a, b)) == [
        "texts of merged models end with any of the models' ends: </s>, w1"
    ]


def test_a_merge_whose_model_lacks_a_tensor_is_an_error(tmp_path: Path) -> None:
    a, _ = save_two("llama", tmp_path)
    file = a / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(IncompleteError, match=r"has no tensor model\.norm\.weight"):
        complete_model(AutoModelForCausalLM, a)


def test_the_recipe_of_two_models_names_its_tokenizers_model() -> None:
    configuration = {"models": [{"model": "o/a"}, {"model": "o/b"}], "tokenizer_source": "o/b"}
    recipe = MergeRecipe(configuration=configuration, seed=0)
    located = recipe.located(lambda name: f"/models/{name}")
    assert located.configuration["tokenizer_source"] == "/models/o/b"
    assert recipe.models() == ["o/a", "o/b"]
