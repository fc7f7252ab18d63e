"""Batches shrink where memory runs out, stay small, and lose no work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.engines import batching
from tests.conftest import WORDS
from tests.engine import generate, negative_log_likelihoods

TEXTS = [" ".join(WORDS[: 2 + i % 7]) + f" {WORDS[i]}" for i in range(11)]


@pytest.fixture(autouse=True)
def fresh_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_limit", batching._limit)


@pytest.fixture
def model_and_tokenizer(tiny: Path) -> tuple[Any, Any]:
    return (
        AutoModelForCausalLM.from_pretrained(tiny / "a"),
        AutoTokenizer.from_pretrained(tiny / "a"),
    )


def exhaust_memory(error: str) -> None:
    """Out of memory: on the CPU really so, by asking for a petabyte."""
    if error == "cpu":
        torch.empty(2**50, dtype=torch.uint8)
    raise MemoryError if error == "python" else torch.OutOfMemoryError("CUDA out of memory")


class Small:
    """A machine whose memory takes so many rows, from a given forward pass on."""

    def __init__(self, model: Any, rows: int, error: str, after: int = 0) -> None:
        self.sizes: list[int] = []
        self._rows, self._error, self._after = rows, error, after
        model.register_forward_pre_hook(self._run, with_kwargs=True)

    def _run(self, _: Any, __: Any, inputs: dict[str, Any]) -> None:
        self.sizes.append(len(inputs["input_ids"]))
        if self.sizes[-1] > self._rows and len(self.sizes) > self._after:
            exhaust_memory(self._error)


@pytest.mark.parametrize("error", ["cpu", "cuda", "python"])
@pytest.mark.parametrize("after", [0, 4])
def test_generation_goes_on_in_smaller_batches(
    model_and_tokenizer: tuple[Any, Any], error: str, after: int
) -> None:
    model, tokenizer = model_and_tokenizer
    whole = generate(model, tokenizer, TEXTS, max_new_tokens=6, batch_size=8)
    small = Small(model, 3, error, after)
    assert generate(model, tokenizer, TEXTS, max_new_tokens=6, batch_size=8) == whole
    assert small.sizes.count(8) == (1 if after == 0 else 4)
    small.sizes.clear()
    assert generate(model, tokenizer, TEXTS, max_new_tokens=6, batch_size=8) == whole
    assert max(small.sizes) == 2  # 8 and 4 are not tried again


def test_likelihoods_go_on_in_smaller_batches(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    whole = negative_log_likelihoods(model, tokenizer, TEXTS, batch_size=8)
    small = Small(model, 4, "cpu", after=1)
    found = negative_log_likelihoods(model, tokenizer, TEXTS, batch_size=8)
    assert small.sizes == [8, 3]  # the second batch is the rest, and fits
    assert found == whole
    found = negative_log_likelihoods(model, tokenizer, TEXTS, batch_size=8)
    assert small.sizes[2:] == [8, 4, 4, 3]
    for (total, tokens), (expected, count) in zip(found, whole, strict=True):
        assert total == pytest.approx(expected, rel=1e-5)
        assert tokens == count


def test_one_row_that_does_not_fit_is_an_error(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    small = Small(model, 0, "cpu")
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        negative_log_likelihoods(model, tokenizer, TEXTS, batch_size=4)
    assert small.sizes == [4, 2, 1]


def test_other_errors_are_not_taken_for_want_of_memory(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    model, tokenizer = model_and_tokenizer
    calls: Iterator[int] = iter(range(9))

    def fail(*_: Any) -> None:
        raise RuntimeError(f"call {next(calls)}: shapes do not match")

    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="call 0"):
        generate(model, tokenizer, TEXTS, max_new_tokens=6, batch_size=8)
