"""Batched, padded generation gives what each prompt gives alone; likelihoods are exact."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.evaluation.generation import generate
from evomerge_optuna.evaluation.likelihoods import negative_log_likelihoods
from tests.conftest import WORDS

PROMPTS = [" ".join(WORDS[: 1 + i % 7]) + f" {WORDS[i]}" for i in range(11)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_generate_is_each_prompts_own_greedy_answer(tiny: Path, batch_size: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    alone = []
    for prompt in PROMPTS:
        encoded = tokenizer(prompt, return_tensors="pt")
        output = model.generate(
            input_ids=encoded["input_ids"], max_new_tokens=6, do_sample=False, pad_token_id=0
        )
        new = output[0, encoded["input_ids"].shape[1] :]
        alone.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=batch_size) == alone


def test_greedy_whatever_the_checkpoint_says(tiny: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4)
    shutil.copytree(tiny / "a", tmp_path / "a")
    settings = {
        "eos_token_id": 1,
        "do_sample": True,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "forced_eos_token_id": 7,
        "suppress_tokens": list(range(8, 12)),
        "num_beams": 3,
        "min_new_tokens": 6,
        "stop_strings": ["word"],
    }
    (tmp_path / "a" / "generation_config.json").write_text(json.dumps(settings))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.generation_config.repetition_penalty == 5
    for _ in range(2):
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4) == plain


def test_the_checkpoints_end_of_sequence_is_kept(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    (full,) = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=6, batch_size=1)
    first = full.split()[0]
    model.generation_config.eos_token_id = [1, tokenizer.convert_tokens_to_ids(first)]
    assert generate(model, tokenizer, PROMPTS[:1], max_new_tokens=6, batch_size=1) == [first]


def test_negative_log_likelihoods(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    found = negative_log_likelihoods(model, tokenizer, PROMPTS, batch_size=4)
    for prompt, (total, tokens) in zip(PROMPTS, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        loss = model(input_ids=ids, labels=ids).loss
        assert tokens == ids.shape[1] - 1
        assert total == pytest.approx(loss.item() * tokens, rel=1e-4)


def test_a_text_of_one_token_has_nothing_to_predict(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    texts = ["", PROMPTS[0], WORDS[0]]
    empty, found, single = negative_log_likelihoods(model, tokenizer, texts, batch_size=4)
    assert empty == single == (0.0, 0)
    assert [found] == negative_log_likelihoods(model, tokenizer, PROMPTS[:1], batch_size=1)


def test_a_tokenizer_without_padding_token(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    plain = AutoTokenizer.from_pretrained(tiny / "a")
    with_pad = generate(model, plain, PROMPTS, max_new_tokens=4, batch_size=4)
    plain.pad_token = None
    assert generate(model, plain, PROMPTS, max_new_tokens=4, batch_size=4) == with_pad
