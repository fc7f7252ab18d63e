"""Generated answers, compared with the data's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.evaluation.cut_off import cut_off_remark
from evomerge_optuna.evaluation.language import is_language
from evomerge_optuna.evaluation.lengths import Given
from evomerge_optuna.evaluation.problem import Problem, column, content
from evomerge_optuna.evaluation.prompts import encode
from evomerge_optuna.evaluation.scorers import normal, score_text
from evomerge_optuna.evaluation.scores import Score, mean, proportion
from evomerge_optuna.evaluation.tasks.prompted import PromptedRunner
from evomerge_optuna.evaluation.tasks.runner import Outcome
from evomerge_optuna.spec import CUT_OFF, Generated, GenerateTask


@dataclass(frozen=True)
class Answer(Outcome):
    """One problem, what the model made of it, and how that counts.

    `found` is what the scorer read in the text, and `match` its score. `right` takes the language
    into account; it is None where scores are no matter of right and wrong, as ROUGE-L is. A model
    that was `cut_off` while it thought gave no answer.
    """

    prompt: str
    text: str
    reference: str
    found: str | None
    match: float
    language_right: bool
    right: bool | None
    cut_off: bool = False

    def mark(self) -> bool | None:
        return self.right


class GenerateRunner(PromptedRunner[GenerateTask]):
    """Generates greedily, and judges each text."""

    def problem(self, row: dict[str, Any], answer: str | None, where: str) -> Problem:
        return Problem(
            self.text(row, where),
            reference(self.task, row, answer or self.task.answer, where),
            content=content(self.task.prompt, row),
        )

    def check(self, problem: Problem, where: str) -> None:
        check_reference(self.task, problem, where)

    def given(self, tokenizer: Any, problems: Sequence[Problem]) -> list[list[Given]]:
        asked = self.prompts(tokenizer, problems)
        return [[Given(encode(tokenizer, one), self.task.max_new_tokens)] for one in asked]

    def run(
        self, model: Any, tokenizer: Any, problems: Sequence[Problem], batch_size: int
    ) -> list[Answer]:
        from evomerge_optuna.evaluation.generation import generate

        texts = generate(
            model,
            tokenizer,
            self.prompts(tokenizer, problems),
            self.task.max_new_tokens,
            batch_size,
            stop=self.task.stop,
            thinking=self.task.thinking,
            too_long=self.task.too_long,
        )
        return judged(self.name, self.task, problems, texts)

    def scores(self, outcomes: Sequence[Answer], split: str) -> dict[str, Score]:
        return answer_scores(self.task, outcomes)

    def remark(self, outcomes: Sequence[Answer]) -> str:
        return cut_off_remark(self.key, [answer.cut_off for answer in outcomes])


def reference(task: Generated, row: dict[str, Any], answer: str, where: str) -> str:
    """The answer in a row of the data.

    Raises:
        SpecError: there is no such column, or it holds no text where one is compared.
    """
    given = column(answer, row, where)
    if not _compares_numbers(task) and not isinstance(given, str | int | float):
        raise SpecError(
            f"{where}: the answer {str(given)[:40]!r} is no text; name the right column"
        )
    return str(given)


def _compares_numbers(task: Generated) -> bool:
    return task.scorer in ("last_number", "released_number")


def check_reference(task: Generated, problem: Problem, where: str) -> None:
    """Refuses an answer that nothing could equal.

    Raises:
        SpecError: it is empty, or has no number where numbers are compared.
    """
    given = problem.reference or ""
    if _compares_numbers(task) and last_number(given) is None:
        raise SpecError(
            f"{where}: the answer {given[:40]!r} has no number; name the right column "
            "as answer, or another scorer"
        )
    if not normal(given):
        raise SpecError(f"{where}: an answer is empty; name the right column as answer")


def judged(
    name: str, task: Generated, problems: Sequence[Problem], texts: Sequence[str | None]
) -> list[Answer]:
    """Every problem's text, by the rule of `judge`."""
    return [judge(name, task, *pair) for pair in zip(problems, texts, strict=True)]


def judge(name: str, task: Generated, problem: Problem, text: str | None) -> Answer:
    """The paper's rule: right when the answer is right and the text is in the language.

    Without a text, of a model that was cut off while it thought, nothing is.
    """
    wanted = problem.reference or ""
    if text is None:
        right = None if task.scorer == "rouge_l" else False
        return Answer(name, problem.text, "", wanted, None, 0.0, False, right, cut_off=True)
    found, match = score_text(task.scorer, text, wanted)
    language_right = task.language is None or is_language(text, task.language)
    return Answer(
        task=name,
        prompt=problem.text,
        text=text,
        reference=wanted,
        found=found,
        match=match,
        language_right=language_right,
        right=None if task.scorer == "rouge_l" else match == 1 and language_right,
    )


def answer_scores(task: Generated, answers: Sequence[Answer]) -> dict[str, Score]:
    """The metrics of the task.

    Accuracy as the paper counts it, that of the number or match alone, the share in the language.
    A text in another language has a ROUGE-L of zero (paper, section 4.2).
    """
    matches = proportion([answer.match == 1 for answer in answers])
    scores = {
        "accuracy": proportion([bool(answer.right) for answer in answers]),
        "number_accuracy": matches,
        "match_accuracy": matches,
        "rouge_l": mean([answer.match * answer.language_right for answer in answers]),
        "language_share": proportion([answer.language_right for answer in answers]),
        CUT_OFF: proportion([answer.cut_off for answer in answers]),
    }
    return {name: scores[name] for name in task.metrics}
