"""Batched, padded generation gives what each prompt gives alone; likelihoods are exact."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.evaluation.generation import generate, negative_log_likelihoods
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


def test_negative_log_likelihoods(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    found = negative_log_likelihoods(model, tokenizer, PROMPTS, batch_size=4)
    for prompt, (total, tokens) in zip(PROMPTS, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        loss = model(input_ids=ids, labels=ids).loss
        assert tokens == ids.shape[1] - 1
        assert total == pytest.approx(loss.item() * tokens, rel=1e-4)


def test_a_tokenizer_without_padding_token(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    plain = AutoTokenizer.from_pretrained(tiny / "a")
    with_pad = generate(model, plain, PROMPTS, max_new_tokens=4, batch_size=4)
    plain.pad_token = None
    assert generate(model, plain, PROMPTS, max_new_tokens=4, batch_size=4) == with_pad
