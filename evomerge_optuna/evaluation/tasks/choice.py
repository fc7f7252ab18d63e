"""The likeliest of given options."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evomerge_optuna.errors import NotFiniteError, SpecError
from evomerge_optuna.evaluation.lengths import Given
from evomerge_optuna.evaluation.problem import Problem, column, content, filled
from evomerge_optuna.evaluation.scorers import normal
from evomerge_optuna.evaluation.scores import Score, proportion
from evomerge_optuna.evaluation.tasks.prompted import PromptedRunner
from evomerge_optuna.evaluation.tasks.runner import Outcome
from evomerge_optuna.evaluation.thinking import thinking_of
from evomerge_optuna.spec import ChoiceTask


@dataclass(frozen=True)
class Choice(Outcome):
    """One problem, the log-likelihoods of its options in nats, and whether the choice is right.

    `right_normalized` is that of the choice by log-likelihood per byte of the option.
    """

    prompt: str
    options: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    reference: str
    right: bool
    right_normalized: bool

    def mark(self) -> bool:
        return self.right


class ChoiceRunner(PromptedRunner[ChoiceTask]):
    """Asks for the likelihood of every option."""

    def problem(self, row: dict[str, Any], answer: str | None, where: str) -> Problem:
        text = self.text(row, where)
        given = column(answer or self.task.answer, row, where)
        options = self._options(row, where)
        right = options[self._right(given, options, where)]
        # "Which is true?" is another question with other options.
        asked = "\n".join([content(self.task.prompt, row), *options])
        return Problem(text, right, options, asked)

    def given(self, tokenizer: Any, problems: Sequence[Problem]) -> list[list[Given]]:
        from evomerge_optuna.evaluation.choice import encode_pair

        found = iter(encode_pair(tokenizer, *pair) for pair in self._pairs(tokenizer, problems))
        return [
            [Given(whole[:given], len(whole) - given) for whole, given in islice(found, count)]
            for count in (len(problem.options) for problem in problems)
        ]

    def run(
        self, model: Any, tokenizer: Any, problems: Sequence[Problem], batch_size: int
    ) -> list[Choice]:
        from evomerge_optuna.evaluation.choice import log_likelihoods

        pairs = self._pairs(tokenizer, problems)
        found = iter(log_likelihoods(model, tokenizer, pairs, batch_size, self.task.too_long))
        return [
            choose(self.name, problem, [next(found) for _ in problem.options])
            for problem in problems
        ]

    def scores(self, outcomes: Sequence[Choice], split: str) -> dict[str, Score]:
        return choice_scores(outcomes)

    def _pairs(self, tokenizer: Any, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        """Every problem's prompt with each of its options, which no thinking comes before."""
        before = "" if self.task.chat else self.task.target_delimiter
        thinking = thinking_of(tokenizer, None)
        asked = self.prompts(tokenizer, problems)
        if thinking is not None and self.task.chat:
            asked = [thinking.ended(prompt) for prompt in asked]
        return [
            (prompt, before + option)
            for prompt, problem in zip(asked, problems, strict=True)
            for option in problem.options
        ]

    def _options(self, row: dict[str, Any], where: str) -> tuple[str, ...]:
        if isinstance(self.task.options, str):
            listed = column(self.task.options, row, where)
            if not isinstance(listed, list):
                raise SpecError(
                    f"{where}: column '{self.task.options}' holds no list; write the columns of "
                    "the options as options: ['{a}', '{b}']"
                )
            options = tuple(map(str, listed))
        else:
            options = tuple(filled(template, row, where) for template in self.task.options)
        if len(options) < 2 or len(set(options)) < len(options) or "" in options:
            raise SpecError(
                f"{where}: the options {options} should be two or more, all different, none empty"
            )
        return options

    def _right(self, answer: Any, options: tuple[str, ...], where: str) -> int:
        """The index of the right option, which the data gives as such or as its text."""
        texts = [normal(option) for option in options]
        text = normal(str(answer))
        named = {texts.index(text)} if text in texts and self.task.answer_as != "index" else set()
        if self.task.answer_as != "text":
            named |= {index for index in range(len(options)) if text == str(index)}
        if len(named) == 1:
            return named.pop()
        raise SpecError(
            f"{where}: the answer {text[:40]!r} "
            + (
                "is the text of one option and the index of another; write answer_as: text or index"
                if named
                else "is no option; it should be the text of one, or its index from 0"
            )
        )


def choose(name: str, problem: Problem, log_likelihoods: Sequence[float]) -> Choice:
    """The likeliest option, and the likeliest for its length; of equals the first.

    Raises:
        NotFiniteError: a likelihood is NaN.
    """
    if any(map(math.isnan, log_likelihoods)):
        raise NotFiniteError(f"tasks.{name}: the log-likelihood of an option is not a number")
    per_byte = [
        found / len(option.encode())
        for found, option in zip(log_likelihoods, problem.options, strict=True)
    ]

    def is_right(by: Sequence[float]) -> bool:
        return problem.options[by.index(max(by))] == problem.reference

    return Choice(
        task=name,
        prompt=problem.text,
        options=problem.options,
        log_likelihoods=tuple(log_likelihoods),
        reference=problem.reference or "",
        right=is_right(log_likelihoods),
        right_normalized=is_right(per_byte),
    )


def choice_scores(choices: Sequence[Choice]) -> dict[str, Score]:
    """Accuracy of the likeliest option, and of the likeliest per UTF-8 byte of its text.

    lm-evaluation-harness calls them acc and acc_bytes; its acc_norm divides by characters.
    """
    return {
        "accuracy": proportion([choice.right for choice in choices]),
        "normalized_accuracy": proportion([choice.right_normalized for choice in choices]),
    }
