"""The likeliest of given options."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evomerge_optuna.errors import NotFiniteError, SpecError
from evomerge_optuna.evaluation.answered import Answered, verdict_of
from evomerge_optuna.evaluation.problem import Problem, column, content, filled
from evomerge_optuna.evaluation.scorers import normal
from evomerge_optuna.evaluation.scores import Score, proportion
from evomerge_optuna.evaluation.tasks.prompted import PromptedRunner
from evomerge_optuna.evaluation.tasks.runner import Outcome
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

    has_answers: ClassVar[bool] = True

    def problem(self, row: dict[str, Any], answer: str | None, where: str) -> Problem:
        text = self.text(row, where)
        given = column(answer or self.task.answer, row, where)
        options = self._options(row, where)
        right = options[self._right(given, options, where)]
        # "Which is true?" is another question with other options.
        asked = "\n".join([content(self.task.prompt, row), *options])
        return Problem(text, right, options, asked)

    def run(
        self, model: Any, tokenizer: Any, problems: Sequence[Problem], batch_size: int
    ) -> list[Choice]:
        from evomerge_optuna.evaluation.choice import log_likelihoods

        before = "" if self.task.chat else self.task.target_delimiter
        asked = self.prompts(tokenizer, problems)
        pairs = [
            (prompt, before + option)
            for prompt, problem in zip(asked, problems, strict=True)
            for option in problem.options
        ]
        found = iter(log_likelihoods(model, tokenizer, pairs, batch_size))
        return [
            choose(self.name, problem, [next(found) for _ in problem.options])
            for problem in problems
        ]

    def scores(self, outcomes: Sequence[Choice], split: str) -> dict[str, Score]:
        return choice_scores(outcomes)

    def answered(self, row: dict[str, Any]) -> Answered:
        options, found, right = row["options"], row["log_likelihoods"], row["right"]
        chosen = options[found.index(max(found))]
        read = ", ".join(f"{o} {nats:.2f}" for o, nats in zip(options, found, strict=True))
        return Answered(row["prompt"], chosen, read, row["reference"], right, verdict_of(right))

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
