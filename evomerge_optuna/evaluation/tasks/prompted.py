"""What is common to tasks with a question and an answer: shots and prompts."""

from collections.abc import Sequence
from typing import TypeVar

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem, Row, filled
from evomerge_optuna.evaluation.prompts import prompts
from evomerge_optuna.evaluation.tasks.base import TaskRunner
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import ChoiceTask, GenerateTask, ShotSource

P = TypeVar("P", bound=GenerateTask | ChoiceTask)


class PromptedRunner(TaskRunner[P]):
    """A task whose problems are prompts after the same shots."""

    _shots: list[Problem] | None = None

    def shots(self) -> list[Problem]:
        if self._shots is None:
            self._shots = self._load_shots()
        return self._shots

    def prompts(self, reader: Reader, problems: Sequence[Problem]) -> list[str]:
        """What the model is given for each problem; see `prompts`."""
        return prompts(self.task, self.shots(), problems, reader, self.key)

    def text(self, row: Row, where: str) -> str:
        """The prompt without its shots."""
        return filled(self.task.prompt, row, where)

    def _load_shots(self) -> list[Problem]:
        given, where = self.task.shots, f"{self.key}.shots"
        if not isinstance(given, ShotSource):
            return [self.problem(row, None, f"{where}[{n}]") for n, row in enumerate(given)]
        found = self._of_source(given, where)[: given.n]
        if len(found) < given.n:
            raise SpecError(f"{where}: {given.path} has {len(found)} rows; write n: {len(found)}")
        return found
