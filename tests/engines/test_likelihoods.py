"""Likelihoods in padded batches are those of each text alone."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import WORDS
from tests.engine import negative_log_likelihoods

PROMPTS = [" ".join(WORDS[: 1 + i % 7]) + f" {WORDS[i]}" for i in range(11)]


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
