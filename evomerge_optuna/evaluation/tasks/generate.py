"""Generated answers, compared with the data's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.engines.stops import Text
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored, verdict_of
from evomerge_optuna.evaluation.answers import one_number, written_numbers
from evomerge_optuna.evaluation.cut_off import cut_off_remark
from evomerge_optuna.evaluation.empty_answers import empty_remark
from evomerge_optuna.evaluation.expressions import is_expression
from evomerge_optuna.evaluation.language import is_language
from evomerge_optuna.evaluation.problem import Problem, Row, column, content, texts_of
from evomerge_optuna.evaluation.scorers import best_score, normal
from evomerge_optuna.evaluation.scores import Score, mean, proportion
from evomerge_optuna.evaluation.tasks.base import Outcome
from evomerge_optuna.evaluation.tasks.prompted import PromptedRunner
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import CUT_OFF, Generated, GenerateTask


@dataclass(frozen=True)
class Answer(Outcome):
    """One problem, what the model made of it, and how that counts.

    `found` is what the scorer read in the text, and `match` its score. `right` takes the language
    into account; it is None where scores are no matter of right and wrong, as ROUGE-L is. Several
    right answers are parted by ` | ` in `reference`. `stopped_by` is the stop string that the text
    ended before. A model that was `cut_off` while it thought gave no answer.
    """

    prompt: str
    text: str
    reference: str
    found: str | None
    match: float
    language_right: bool
    right: bool | None
    stopped_by: str | None = None
    cut_off: bool = False

    def mark(self) -> bool | None:
        return self.right


class GenerateRunner(PromptedRunner[GenerateTask]):
    """Generates greedily, and judges each text."""

    has_answers: ClassVar[bool] = True
    asks_in_order: ClassVar[bool] = True

    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        right, *others = answers(row, answer or self.task.answer, where)
        return Problem(
            self.text(row, where),
            right,
            content=content(self.task.prompt, row),
            others=tuple(others),
            place=where,
        )

    def check(self, problem: Problem, where: str) -> None:
        check_reference(self.task, problem, where)

    def given(self, reader: Reader, problems: Sequence[Problem]) -> list[list[Given]]:
        asked = self.prompts(reader, problems)
        return [[Given(reader.encode(one), self.task.max_new_tokens)] for one in asked]

    def run(self, engine: TextEngine, problems: Sequence[Problem]) -> list[Answer]:
        task = self.task
        how = Greedy(task.max_new_tokens, task.stop, task.thinking, task.too_long)
        texts = engine.generate(self.prompts(engine.reader, problems), how)
        return judged(self.name, task, problems, texts)

    def scores(self, outcomes: Sequence[Answer], split: str) -> dict[str, Score]:
        return answer_scores(self.task, outcomes)

    def lessons(self, reader: Reader, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        asked = self.prompts(reader, problems)
        return [(p, one.references[0]) for p, one in zip(asked, problems, strict=True)]

    def remark(self, outcomes: Sequence[Answer]) -> str:
        return answer_remark(self.key, outcomes)

    def answered(self, row: Stored) -> Answered:
        return answered_text(row)


RUNNER = GenerateRunner


def answers(row: Row, name: str, where: str) -> tuple[str, ...]:
    """The right answers in a row of the data, of which there is one at least.

    Raises:
        SpecError: there is no such column, or it holds neither a text, a number nor a list of them.
    """
    return texts_of(column(name, row, where), where, name)


def check_reference(task: Generated, problem: Problem, where: str) -> None:
    """Refuses an answer that nothing could equal, or that is not what the scorer compares.

    Raises:
        SpecError: it is empty, or no number or expression where such are compared.
    """
    where, given = problem.place or where, problem.references
    if not all(map(normal, given)):
        raise SpecError(f"{where}: an answer is empty; name the right column as answer")
    if task.scorer in ("last_number", "released_number"):
        _check_numbers(given, task.language, where)
    elif task.scorer == "math" and not any(is_expression(one, task.language) for one in given):
        raise SpecError(
            f"{where}: the answer {given[0][:40]!r} is no expression that math-verify reads; name "
            "the right column as answer, or another scorer, as exact"
        )


def _check_numbers(given: Sequence[str], language: str | None, where: str) -> None:
    """Of several right answers some may be words, but none may hold several numbers."""
    unread = [one for one in given if one_number(one, language) is None]
    several = [one for one in unread if written_numbers(one, language)]
    if several:
        raise SpecError(
            f"{where}: the answer {several[0][:40]!r} is not one number; write scorer: exact, or "
            "math, which compares expressions, or name the column of the number as answer"
        )
    if len(unread) == len(given):
        raise SpecError(
            f"{where}: the answer {given[0][:40]!r} has no number; name the right column "
            "as answer, or another scorer"
        )


def judged(
    name: str, task: Generated, problems: Sequence[Problem], texts: Sequence[str | None]
) -> list[Answer]:
    """Every problem's text, by the rule of `judge`."""
    return [judge(name, task, *pair) for pair in zip(problems, texts, strict=True)]


def judge(name: str, task: Generated, problem: Problem, text: str | None) -> Answer:
    """The paper's rule: right when the answer is right and the text is in the language.

    Without a text, of a model that was cut off while it thought, nothing is.
    """
    if text is None:
        right = None if task.scorer == "rouge_l" else False
        wanted = " | ".join(problem.references)
        return Answer(name, problem.text, "", wanted, None, 0.0, False, right, cut_off=True)
    found, match = best_score(task.scorer, text, problem.references, task.language)
    language_right = task.language is None or is_language(text, task.language)
    return Answer(
        task=name,
        prompt=problem.text,
        text=text,
        reference=" | ".join(problem.references),
        found=found,
        match=match,
        language_right=language_right,
        right=None if task.scorer == "rouge_l" else match == 1 and language_right,
        stopped_by=text.stopped_by if isinstance(text, Text) else None,
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
    return {metric.name: scores[metric.name] for metric in task.metrics}


def answer_remark(key: str, answers: Sequence[Answer]) -> str:
    """See `TaskRunner.remark`."""
    cut_off = cut_off_remark(key, [answer.cut_off for answer in answers])
    return cut_off or empty_remark(key, [(answer.text, answer.stopped_by) for answer in answers])


def answered_text(row: Stored) -> Answered:
    """A stored `Answer`, which an earlier version may have stored without its latest fields."""
    right, match, found = row["right"], row["match"], row["found"]
    verdict = verdict_of(right, match * row["language_right"])
    if right is False and match == 1:
        verdict = "wrong language"
    if row.get("cut_off"):
        verdict = "cut off"
    read = None if found == row["text"] else found
    return Answered(row["prompt"], row["text"], read, row["reference"], right, verdict)
