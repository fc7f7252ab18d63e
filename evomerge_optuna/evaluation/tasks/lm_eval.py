"""Tasks of EleutherAI's lm-evaluation-harness, built-in or of the user's own folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from evomerge_optuna.engines.base import TextEngine
from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored, verdict_of
from evomerge_optuna.evaluation.cut_off import cut_off_remark
from evomerge_optuna.evaluation.empty_answers import empty_remark
from evomerge_optuna.evaluation.problem import Problem, Row
from evomerge_optuna.evaluation.scores import Score, bootstrapped, mean, proportion
from evomerge_optuna.evaluation.tasks.base import Outcome, TaskRunner
from evomerge_optuna.evaluation.user_code import require_allowed
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import CUT_OFF, Documents, LMEvalTask, Metric
from evomerge_optuna.spec.engines import Need
from evomerge_optuna.spec.metrics import Better

if TYPE_CHECKING:
    from evomerge_optuna.evaluation.harness import Aggregation, HarnessTask


@dataclass(frozen=True)
class Document(Problem):
    """A document of the harness's task, and its place in its split ("": the task's own)."""

    split: str = ""
    index: int = 0


@dataclass(frozen=True)
class Measured(Outcome):
    """One document, what the model gave, and the metric's value, of which scores are made.

    The value is None where the metric says nothing of this document. A model that was `cut_off`
    while it thought gave an empty response.
    """

    document: int
    prompt: str
    responses: object
    reference: object
    value: object
    cut_off: bool = False

    def mark(self) -> bool | None:
        return bool(self.value) if _is_right_or_wrong(self.value) else None


class LMEvalRunner(TaskRunner[LMEvalTask]):
    """Has the harness ask the model and compute the metric, document by document."""

    has_answers: ClassVar[bool] = True

    @cached_property
    def _harness(self) -> "HarnessTask":
        for key in ("include_path", "backend"):
            if (name := getattr(self.task, key)) is not None:
                require_allowed(name, f"{self.key}.{key}")
        try:
            from evomerge_optuna.evaluation.harness import HarnessTask
        except ModuleNotFoundError as error:
            raise SpecError(
                f"{self.key}: needs lm-evaluation-harness ({error}); "
                "pip install 'evomerge-optuna[lm-eval]'"
            ) from error
        return HarnessTask(self.task, self.key)

    @property
    def needs(self) -> Need | None:
        if self.task.backend is not None:
            return "a checkpoint"
        return None if self._harness.is_greedy else "sampling"

    @property
    def is_mean(self) -> bool:
        return self._harness.is_mean

    def better(self, metric: Metric) -> Better | None:
        if metric.name != self.task.metric:
            return metric.better
        return self._harness.better or metric.better

    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        text = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str)
        return Problem(text, content=self._harness.question(row) or text)

    def given(self, reader: Reader, problems: Sequence[Problem]) -> list[list[Given]]:
        documents = [problem for problem in problems if isinstance(problem, Document)]
        places = [document.index for document in documents]
        return self._harness.given(reader, documents[0].split, places)

    def run(self, engine: TextEngine, problems: Sequence[Problem]) -> list[Measured]:
        documents = [problem for problem in problems if isinstance(problem, Document)]
        places = [document.index for document in documents]
        found = self._harness.samples(engine, documents[0].split, places)
        return [
            Measured(
                task=self.name,
                document=sample["doc_id"],
                prompt=str(sample["arguments"][0][0]),
                responses=_plain(sample["filtered_resps"]),
                reference=_plain(sample["target"]),
                value=_plain(sample.get(self.task.metric)),
                cut_off=sample["cut_off"],
            )
            for sample in found
        ]

    def scores(self, outcomes: Sequence[Measured], split: str) -> dict[str, Score]:
        values = [outcome.value for outcome in outcomes if outcome.value is not None]
        if not values:
            raise CandidateError(
                f"{self.key}.data.{split}: the task gives no document a value of "
                f"{self.task.metric}; give more documents"
            )
        return {
            self.task.metric: _score(values, self._harness.aggregate, self.is_mean),
            CUT_OFF: proportion([outcome.cut_off for outcome in outcomes]),
        }

    def remark(self, outcomes: Sequence[Measured]) -> str:
        # Only what `generate_until` gives can be empty; which string ended it is not logged.
        return cut_off_remark(self.key, [o.cut_off for o in outcomes]) or empty_remark(
            self.key, [(_as_text(o.responses).strip(), None) for o in outcomes]
        )

    def answered(self, row: Stored) -> Answered:
        value = row["value"]
        right = bool(value) if _is_right_or_wrong(value) else None
        score = value if isinstance(value, int | float) else None
        answer, reference = _as_text(row["responses"]), _as_text(row["reference"])
        return Answered(row["prompt"], answer, None, reference, right, verdict_of(right, score))

    def _load(self, split: str) -> list[Problem]:
        source, where = self.task.data.sources()[split], f"{self.key}.data.{split}"
        assert isinstance(source, Documents)
        rows = self._harness.documents(source.split, where)
        chosen = source.of(len(rows))
        if not chosen:
            raise SpecError(f"{where}: {source} has no documents; there are {len(rows)}")
        loaded = [self.problem(rows[index], None, where) for index in chosen]
        return [
            Document(problem.text, content=problem.content, split=source.split, index=index)
            for problem, index in zip(loaded, chosen, strict=True)
        ]


RUNNER = LMEvalRunner


def _score(values: list[Any], aggregate: "Aggregation", is_mean: bool) -> Score:
    if not is_mean:
        return bootstrapped(values, lambda items: float(aggregate(list(items))))
    if all(map(_is_right_or_wrong, values)):
        return proportion([bool(value) for value in values])
    return mean([float(value) for value in values])


def _is_right_or_wrong(value: object) -> bool:
    return isinstance(value, bool | int | float) and value in (0, 1)


def _as_text(value: object) -> str:
    """A response, or the only one of a list, as it is; anything else as JSON."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: object) -> object:
    """As JSON has it; numpy's numbers as Python's."""
    return json.loads(json.dumps(value, default=_plain_number))


def _plain_number(value: Any) -> float | str:
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
