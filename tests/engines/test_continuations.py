"""Likelihoods of options: batched as alone, by definition.

Covers engines.encoding, too.
"""

from pathlib import Path

import pytest
import torch

from evomerge_optuna.models.loading import load_model
from tests.conftest import WORDS
from tests.engine import log_likelihoods

PAIRS = [
    (" ".join(WORDS[: 1 + i % 5]), " " + " ".join(WORDS[i % 3 : i % 3 + 1 + i % 4]))
    for i in range(17)
]


def test_batched_as_alone_and_by_definition(tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    found = log_likelihoods(model, tokenizer, PAIRS, batch_size=5)
    for (prompt, option), value in zip(PAIRS, found, strict=True):
        given = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(prompt + option, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            table = model(ids).logits[0].log_softmax(-1)
        wanted = sum(float(table[i - 1, ids[0, i]]) for i in range(given, ids.shape[1]))
        assert value == pytest.approx(wanted, rel=1e-5)
        (alone,) = log_likelihoods(model, tokenizer, [(prompt, option)], batch_size=1)
        assert value == pytest.approx(alone, rel=1e-6)
