"""What every kind of task does: it loads its problems, asks an engine, and scores the answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored
from evomerge_optuna.evaluation.problem import Problem, Row
from evomerge_optuna.evaluation.rows import load_rows
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.families.base import Asked
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import DataSource, Metric, Task
from evomerge_optuna.spec.engines import Need
from evomerge_optuna.spec.metrics import Better

T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class Outcome:
    """What came of one problem of a task; each kind of task adds its own, which is stored."""

    task: str

    def mark(self) -> bool | None:
        """Was it answered right? None where that is no matter of right and wrong."""
        return None


class TaskRunner(ABC, Generic[T]):
    """One task of a spec: its problems, loaded once for each split, and how models do on them.

    Args:
        name: the task's name in the spec.
    """

    asks: ClassVar[Asked] = "texts"  # of a model
    has_answers: ClassVar[bool] = False  # has something to read in each outcome; see `answered`
    # Is an engine given the texts of all problems in one call, in the order of the problems, and as
    # many for a problem wherever it stands? Then several candidates can be asked at once.
    asks_in_order: ClassVar[bool] = False

    def __init__(self, name: str, task: T) -> None:
        self.name = name
        self.task = task
        self.key = f"tasks.{name}"  # its place in the spec, named in errors
        self._problems: dict[str, list[Problem]] = {}

    @property
    def needs(self) -> Need | None:
        """What the task needs of an engine that not every engine has.

        Raises:
            SpecError: the task cannot be loaded.
        """
        return None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the spec gives, in the order search, dev, test."""
        return tuple(self.task.data.sources())

    def problems(self, split: str) -> list[Problem]:
        """The problems of one split, in the order of the data.

        Raises:
            SpecError: the data cannot be had, or a column that the task uses is missing.
        """
        if split not in self.splits:
            raise SpecError(
                f"{self.key}.data: the spec gives no {split} split; add {split}: {{path: ...}}"
            )
        if split not in self._problems:
            self._problems[split] = self._load(split)
        return self._problems[split]

    @property
    def is_mean(self) -> bool:
        """Is the score a mean over problems, so that blocks of them can be raced?"""
        return True

    def better(self, metric: Metric) -> Better | None:
        """Which values of one of the task's metrics are better; None: nobody says.

        Raises:
            SpecError: the task cannot be loaded.
        """
        return metric.better

    def shots(self) -> list[Problem]:
        """The solved problems that come before every other.

        Raises:
            SpecError: they cannot be had, a column is missing, or there are fewer than wanted.
        """
        return []

    def check(self, problem: Problem, where: str) -> None:
        """Refuses a problem that no answer could be right for.

        Raises:
            SpecError: naming what is wrong with it.
        """

    def check_judges(self) -> None:
        """Refuses what the task's own keys name for judging answers, where it is not there.

        Raises:
            SpecError: naming the key.
        """

    def judges(self) -> dict[str, str]:
        """SHA-256 of the files that judge answers, by their place in the spec.

        Raises:
            SpecError: one cannot be had.
        """
        return {}

    @abstractmethod
    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        """The problem in a row of the data.

        Args:
            answer: the answer's column, where the data names one.
            where: the row's place, named in errors.

        Raises:
            SpecError: a column is missing, or it holds what it should not.
        """

    def check_reader(self, reader: Reader) -> None:
        """Refuses a model that cannot read all that the task gives.

        Raises:
            SpecError: naming what the model lacks.
        """

    def given(self, reader: Reader, problems: Sequence[Problem]) -> list[list[Given]]:
        """What a model with this reader is given for each problem; nothing where none can tell.

        Raises:
            SpecError: the task does not fit the reader.
        """
        return [[] for _ in problems]

    @abstractmethod
    def run(self, engine: Any, problems: Sequence[Problem]) -> Sequence[Outcome]:
        """What the engine's model makes of each problem, in their order.

        Args:
            engine: a `TextEngine` or an `ImageEngine`, as the task `asks`.

        Raises:
            CandidateError: the model cannot be run, or gives nothing that could be scored.
            SpecError: the task does not fit the model's reader or the engine, or its code fails.
        """

    @abstractmethod
    def scores(self, outcomes: Sequence[Any], split: str) -> dict[str, Score]:
        """The task's metrics over outcomes of its own; there is one at least.

        Raises:
            CandidateError: none of them can be scored.
        """

    def lessons(self, reader: Reader, problems: Sequence[Problem]) -> list[tuple[str, str]]:
        """What a model with this reader would be taught: prompts, and right texts behind them.

        Nothing where a task has no right texts.
        """
        return []

    def remark(self, outcomes: Sequence[Any]) -> str:
        """What a reader of the scores should know of these outcomes, in a line; mostly nothing."""
        return ""

    def answered(self, row: Stored) -> Answered | None:
        """A stored outcome as a person reads it; None where the task has nothing to read."""
        return None

    def _load(self, split: str) -> list[Problem]:
        source = self.task.data.sources()[split]
        assert isinstance(source, DataSource)
        return self._of_source(source, f"{self.key}.data.{split}")

    def _of_source(self, source: DataSource, where: str) -> list[Problem]:
        return [self.problem(row, source.answer, place) for place, row in load_rows(source, where)]
