"""Perplexity of given texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evomerge_optuna.engines.base import TextEngine
from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.errors import CandidateError
from evomerge_optuna.evaluation.problem import Problem, Row, content, filled
from evomerge_optuna.evaluation.scores import Score, mean
from evomerge_optuna.evaluation.tasks.base import Outcome, TaskRunner
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import PerplexityTask


@dataclass(frozen=True)
class Likelihood(Outcome):
    """One text and how likely the model finds it, in nats."""

    text: str
    negative_log_likelihood: float
    tokens: int


class PerplexityRunner(TaskRunner[PerplexityTask]):
    """Measures how likely the model finds each text."""

    asks_in_order: ClassVar[bool] = True

    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        text = filled(self.task.text, row, where)
        return Problem(text, content=content(self.task.text, row), place=where)

    def given(self, reader: Reader, problems: Sequence[Problem]) -> list[list[Given]]:
        return [[Given(reader.encode(problem.text))] for problem in problems]

    def run(self, engine: TextEngine, problems: Sequence[Problem]) -> list[Likelihood]:
        texts = [problem.text for problem in problems]
        found = engine.negative_log_likelihoods(texts, self.task.too_long)
        return [
            Likelihood(self.name, text, nll, tokens)
            for text, (nll, tokens) in zip(texts, found, strict=True)
        ]

    def lessons(self, reader: Reader, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        return [("", problem.text) for problem in problems]

    def scores(self, outcomes: Sequence[Likelihood], split: str) -> dict[str, Score]:
        return {"perplexity": perplexity(outcomes, f"{self.key}.data.{split}")}


RUNNER = PerplexityRunner


def perplexity(texts: Sequence[Likelihood], where: str) -> Score:
    """exp of the mean over texts of the negative log-likelihood per token; see PerplexityTask.

    Raises:
        CandidateError: to this model's tokenizer no text has more than one token.
    """
    per_token = [text.negative_log_likelihood / text.tokens for text in texts if text.tokens]
    if not per_token:
        raise CandidateError(f"{where}: no text has more than one token; give longer texts")
    return mean(per_token, _exp)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
