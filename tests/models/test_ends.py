"""A merged model's texts end where those of any of its models do, in memory and as written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec
from tests.engine import merged_of

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c", "<|im_end|>"]
OTHER = ["<pad>", "<unk>", "<s>", "x", "</s>", "<|im_end|>", "a", "b", "c"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def save_model(
    folder: Path,
    words: list[str] = WORDS,
    ends: list[int] | None = None,
    template: str | None = None,
    **settings: Any,
) -> str:
    """A random Llama with this vocabulary; without `ends` it has no generation_config.json."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(len(str(folder)))
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, pad_token_id=0, bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    file = folder / "generation_config.json"
    file.unlink()
    if ends is not None:
        file.write_text(json.dumps({"eos_token_id": ends, **settings}))
    return str(folder)


def merged_and_written(
    folder: Path, sources: list[str], **options: str
) -> tuple[list[str], Any, Any]:
    """The ends of a merge as tokens, equal in memory and on disk; both models' tokenizer."""
    configuration = {
        "merge_method": "linear",
        "base_model": sources[0],
        "models": [{"model": source, "parameters": {"weight": 0.5}} for source in sources],
        **options,
    }
    recipe = MergeRecipe(configuration=configuration, seed=0)
    merged = ModelInPlace(ResidentMerger("cpu")).merge(recipe)
    write_recipe(recipe, folder, "cpu")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == merged.tokenizer.get_vocab()
    assert tokenizer.chat_template == merged.tokenizer.chat_template
    ends = [found.generation_config.eos_token_id for found in (merged.model, model)]
    assert ends[0] == ends[1]
    assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("</s>")
    ids = ends[0] if isinstance(ends[0], list) else [ends[0]]
    return tokenizer.convert_ids_to_tokens(ids), tokenizer, model


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        ((None, None), ["</s>"]),
        ((None, [7]), ["</s>", "<|im_end|>"]),
        (([7], None), ["<|im_end|>", "</s>"]),
        (([2, 7], [7, 2]), ["</s>", "<|im_end|>"]),
        (([0, 2], [0, 2]), ["<pad>", "</s>"]),
    ],
)
@pytest.mark.parametrize("source", [None, "base", "union"])
def test_ends_are_united(
    tmp_path: Path,
    home: Path,
    ends: tuple[list[int] | None, list[int] | None],
    wanted: list[str],
    source: str | None,
) -> None:
    models = [save_model(tmp_path / n, ends=e) for n, e in zip("ab", ends, strict=True)]
    options = {} if source is None else {"tokenizer_source": source}
    assert merged_and_written(tmp_path / "out", models, **options)[0] == wanted


@pytest.mark.parametrize("source", ["base", "union", "other"])
def test_ends_have_the_ids_of_the_merged_vocabulary(
    tmp_path: Path, home: Path, source: str
) -> None:
    a = save_model(tmp_path / "a", ends=[2], temperature=0.7)
    b = save_model(tmp_path / "b", OTHER, ends=[5])
    options = {"tokenizer_source": b if source == "other" else source}
    ends, _, model = merged_and_written(tmp_path / "out", [a, b], **options)
    assert ends == ["</s>", "<|im_end|>"]
    assert model.generation_config.temperature == 0.7


def test_a_stack_ends_where_its_models_do(tmp_path: Path, home: Path) -> None:
    a, b = save_model(tmp_path / "a", ends=[2]), save_model(tmp_path / "b", OTHER, ends=[5])
    steps = (Step(model=a, layer=0), Step(model=b, layer=1))
    recipe = StackRecipe(embeddings=a, steps=steps, head=a)
    merged = merged_of(Builder(EvaluationSpec()).build(recipe))
    assert merged.model.generation_config.eos_token_id == [2, 7]
    write_recipe(recipe, tmp_path / "out", "cpu")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert written.generation_config.eos_token_id == [2, 7]


@pytest.mark.parametrize(
    ("given", "wanted"), [("auto", TEMPLATE), (TEMPLATE + " ", TEMPLATE + " "), ("chatml", None)]
)
def test_a_merge_has_the_chat_template_that_the_spec_names(
    tmp_path: Path, home: Path, given: str, wanted: str | None
) -> None:
    a, b = save_model(tmp_path / "a", ends=[2]), save_model(tmp_path / "b", template=TEMPLATE)
    _, tokenizer, model = merged_and_written(tmp_path / "out", [a, b], chat_template=given)
    if wanted is None:
        assert "<|im_start|>" in tokenizer.chat_template
    else:
        assert tokenizer.chat_template == wanted
    assert model.generation_config.eos_token_id == [2]


def test_a_merge_has_the_chat_template_of_its_tokenizers_model(tmp_path: Path, home: Path) -> None:
    a, b = save_model(tmp_path / "a"), save_model(tmp_path / "b", template=TEMPLATE)
    _, tokenizer, _ = merged_and_written(tmp_path / "out", [a, b], tokenizer_source=b)
    assert tokenizer.chat_template == TEMPLATE
