"""The user's own scoring function; see `evaluation.user_code`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evomerge_optuna.engines.base import TextEngine
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored, verdict_of
from evomerge_optuna.evaluation.problem import Problem, Row
from evomerge_optuna.evaluation.scores import Score, mean
from evomerge_optuna.evaluation.tasks.base import Outcome, TaskRunner
from evomerge_optuna.evaluation.user_code import score_rows
from evomerge_optuna.spec import PythonTask
from evomerge_optuna.spec.engines import Need


@dataclass(frozen=True)
class Rated(Outcome):
    """One row of a python task and the user's score for it."""

    row: str
    score: float


class PythonRunner(TaskRunner[PythonTask]):
    """Hands the model and the rows to the user's function."""

    has_answers: ClassVar[bool] = True

    @property
    def needs(self) -> Need:
        return "a model"

    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        try:
            text = json.dumps(row, ensure_ascii=False, sort_keys=True)
        except TypeError as error:
            raise SpecError(
                f"{where}: a row has something else than text and numbers: {error}"
            ) from error
        return Problem(text, content=text, place=where)

    def run(self, engine: TextEngine, problems: Sequence[Problem]) -> list[Rated]:
        raw, rows = engine.raw(self.key), [json.loads(problem.text) for problem in problems]
        rated = score_rows(self.task.function, self.key, rows, raw.model, raw.tokenizer)
        return [Rated(self.name, p.text, score) for p, score in zip(problems, rated, strict=True)]

    def scores(self, outcomes: Sequence[Rated], split: str) -> dict[str, Score]:
        return {"score": mean([outcome.score for outcome in outcomes])}

    def answered(self, row: Stored) -> Answered:
        return Answered(row["row"], None, None, None, None, verdict_of(None, row["score"]))


RUNNER = PythonRunner
