"""The likeliest of given options."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from evomerge_optuna.engines.base import TextEngine
from evomerge_optuna.engines.encoding import encode_pair
from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.engines.thinking import thinking_of
from evomerge_optuna.errors import NotFiniteError, SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored, verdict_of
from evomerge_optuna.evaluation.problem import Problem, Row, column, content, filled, texts_of
from evomerge_optuna.evaluation.scorers import normal
from evomerge_optuna.evaluation.scores import Score, proportion
from evomerge_optuna.evaluation.tasks.base import Outcome
from evomerge_optuna.evaluation.tasks.prompted import PromptedRunner
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.reader import Reader
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
    asks_in_order: ClassVar[bool] = True

    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        text = self.text(row, where)
        name = answer or self.task.answer
        given = texts_of(column(name, row, where), where, name)
        options = self._listed("options", self.task.options, row, where)
        if len(options) < 2 or "" in options:
            raise SpecError(
                f"{where}: the options {_shown(options)} should be two or more, none empty"
            )
        labels = self._labels(row, options, where)
        right, *others = (options[self._right(one, options, labels, where)] for one in given)
        # "Which is true?" is another question with other options.
        asked = "\n".join([content(self.task.prompt, row), *options])
        return Problem(text, right, options, asked, others=tuple(others), place=where)

    def given(self, reader: Reader, problems: Sequence[Problem]) -> list[list[Given]]:
        found = iter(encode_pair(reader, *pair) for pair in self._pairs(reader, problems))
        return [
            [Given(whole[:given], len(whole) - given) for whole, given in islice(found, count)]
            for count in (len(problem.options) for problem in problems)
        ]

    def run(self, engine: TextEngine, problems: Sequence[Problem]) -> list[Choice]:
        pairs = self._pairs(engine.reader, problems)
        found = iter(engine.log_likelihoods(pairs, self.task.too_long))
        return [
            choose(self.name, problem, [next(found) for _ in problem.options])
            for problem in problems
        ]

    def scores(self, outcomes: Sequence[Choice], split: str) -> dict[str, Score]:
        return choice_scores(outcomes)

    def lessons(self, reader: Reader, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        pairs = iter(self._pairs(reader, problems))
        found = []
        for problem in problems:
            own = dict(zip(problem.options, islice(pairs, len(problem.options)), strict=True))
            found.append(own[problem.references[0]])
        return found

    def answered(self, row: Stored) -> Answered:
        options, found, right = row["options"], row["log_likelihoods"], row["right"]
        chosen = options[found.index(max(found))]
        read = ", ".join(f"{o} {nats:.2f}" for o, nats in zip(options, found, strict=True))
        return Answered(row["prompt"], chosen, read, row["reference"], right, verdict_of(right))

    def _pairs(self, reader: Reader, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        """Every problem's prompt with each of its options, which no thinking comes before."""
        before = "" if self.task.chat else self.task.target_delimiter
        thinking = thinking_of(reader.tokenizer, None)
        asked = self.prompts(reader, problems)
        if thinking is not None and self.task.chat:
            asked = [thinking.ended(prompt) for prompt in asked]
        return [
            (prompt, before + option)
            for prompt, problem in zip(asked, problems, strict=True)
            for option in problem.options
        ]

    def _listed(
        self, key: str, given: str | tuple[str, ...], row: Row, where: str
    ) -> tuple[str, ...]:
        """The texts of a column that holds a list, or of templates; all of them different."""
        if isinstance(given, str):
            values = column(given, row, where)
            if not isinstance(values, list):
                raise SpecError(
                    f"{where}: column '{given}' holds no list; write the columns of the {key} as "
                    f"{key}: ['{{a}}', '{{b}}']"
                )
            found = texts_of(values, where, given)
        else:
            found = tuple(filled(template, row, where) for template in given)
        if len(set(found)) < len(found):
            raise SpecError(f"{where}: the {key} {_shown(found)} should be all different")
        return found

    def _labels(self, row: Row, options: tuple[str, ...], where: str) -> tuple[str, ...]:
        if self.task.labels is None:
            return ()
        labels = self._listed("labels", self.task.labels, row, where)
        more = len(labels) - len(options)
        if more < 0 or (more and isinstance(self.task.labels, str)):
            raise SpecError(f"{where}: {len(options)} options have {len(labels)} labels")
        return labels[: len(options)]

    def _right(
        self, answer: str, options: tuple[str, ...], labels: tuple[str, ...], where: str
    ) -> int:
        """The index of the right option, which the data gives as its text, label or index."""
        ways: dict[str, Callable[[], set[int]]] = {
            "text": lambda: _equal_to(answer, options),
            "label": lambda: _equal_to(answer, labels),
            "index": lambda: {i for i in range(len(options)) if normal(answer) == str(i)},
        }
        if self.task.answer_as is not None:
            allowed: list[str] = [self.task.answer_as]
        else:  # labels may be 1, 2, 3, and are what the answer is then
            allowed = ["text", "label" if labels else "index"]
        found = {way: ways[way]() for way in allowed}
        named = set().union(*found.values())
        if len(named) == 1:
            return int(named.pop())
        raise SpecError(
            f"{where}: the answer {answer[:40]!r} " + _why_not_one(found, named, bool(labels))
        )


RUNNER = ChoiceRunner


def _shown(texts: tuple[str, ...]) -> str:
    return one_line(str(texts), 200)


def _equal_to(answer: str, texts: tuple[str, ...]) -> set[int]:
    """The place of the text that equals the answer as it stands, or of those that look like it."""
    if answer in texts:
        return {texts.index(answer)}
    return {place for place, text in enumerate(texts) if normal(text) == normal(answer)}


def _why_not_one(found: dict[str, set[int]], named: set[int], labelled: bool) -> str:
    if not named:
        what = "label" if labelled else "index from 0"
        cure = "" if labelled else "; if it is a letter, write labels: [A, B, C, D]"
        return f"is no option; it should be the text of one, or its {what}{cure}"
    way = next((way for way, places in found.items() if len(places) > 1), None)
    if way is not None:
        return (
            f"is equal to several of the {'labels' if way == 'label' else 'options'} but for "
            "white space or the width of characters; write it as one of them stands"
        )
    other = "label" if labelled else "index"
    return f"is the text of one option and the {other} of another; write answer_as: text or {other}"


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
        return problem.options[by.index(max(by))] in problem.references

    return Choice(
        task=name,
        prompt=problem.text,
        options=problem.options,
        log_likelihoods=tuple(log_likelihoods),
        reference=" | ".join(problem.references),
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
