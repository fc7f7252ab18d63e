"""Engines for tests: a model and its tokenizer asked in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evomerge_optuna.engines.base import Candidate, Greedy
from evomerge_optuna.engines.transformers import TransformersEngine
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import Cut


def engine_of(model: Any, tokenizer: Any, batch_size: int = 64) -> TransformersEngine:
    """An engine of a loaded model; `engine_of(*load_model(...))`."""
    return TransformersEngine(model, Reader(tokenizer, positions(model.config)), batch_size)


@dataclass(frozen=True)
class Seen:
    """A candidate to look into."""

    model: Any
    tokenizer: Any
    digest: str
    processor: Any


def merged_of(candidate: Candidate) -> Seen:
    raw, reader = candidate.engine.raw("a test"), candidate.engine.reader
    return Seen(raw.model, raw.tokenizer, candidate.digest, reader.processor)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    stop: Sequence[str] = (),
    thinking: str | None = None,
    too_long: Cut | None = None,
) -> list[Any]:
    how = Greedy(max_new_tokens, stop, thinking, too_long)
    return engine_of(model, tokenizer, batch_size=batch_size).generate(prompts, how)


def generate_about(
    model: Any,
    reader: Reader,
    prompts: Sequence[str],
    images: Sequence[bytes],
    max_new_tokens: int,
    batch_size: int,
    stop: Sequence[str] = (),
) -> list[Any]:
    engine = TransformersEngine(model, reader, batch_size)
    return engine.generate(prompts, Greedy(max_new_tokens, stop), images)


def log_likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    too_long: Cut | None = None,
) -> list[float]:
    return engine_of(model, tokenizer, batch_size=batch_size).log_likelihoods(pairs, too_long)


def negative_log_likelihoods(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    batch_size: int,
    too_long: Cut | None = None,
) -> list[tuple[float, int]]:
    engine = engine_of(model, tokenizer, batch_size=batch_size)
    return engine.negative_log_likelihoods(texts, too_long)
