"""Questions about images, answered in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored
from evomerge_optuna.evaluation.image_prompts import check_takes_images, image_prompts
from evomerge_optuna.evaluation.images import check_image, image_bytes
from evomerge_optuna.evaluation.problem import Problem, Row, column, content, filled
from evomerge_optuna.evaluation.rows import load_rows
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.evaluation.tasks.base import TaskRunner
from evomerge_optuna.evaluation.tasks.generate import (
    Answer,
    answer_remark,
    answer_scores,
    answered_text,
    answers,
    check_reference,
    judged,
)
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import IMAGE, DataSource, VqaTask
from evomerge_optuna.spec.engines import Need
from evomerge_optuna.zoo.pictures import require_pillow


class VqaRunner(TaskRunner[VqaTask]):
    """Generates greedily from prompt and image, and judges each text."""

    has_answers: ClassVar[bool] = True

    @property
    def needs(self) -> Need:
        return "sight"

    def problem(self, row: Row, answer: str | None, where: str) -> Problem:
        right, *others = answers(row, answer or self.task.answer, where)
        image = column(self.task.image, row, where)
        assert isinstance(image, bytes)  # see `_of_source`
        return Problem(
            filled(self.task.prompt, row, where),
            right,
            content=content(self.task.prompt, row),
            image=image,
            others=tuple(others),
            place=where,
        )

    def check(self, problem: Problem, where: str) -> None:
        check_reference(self.task, problem, where)
        if problem.text.count(IMAGE) != 1:
            raise SpecError(f"{where}: a problem has {IMAGE} in its text, as if of another image")
        check_image(problem.image or b"", where)

    def check_reader(self, reader: Reader) -> None:
        check_takes_images(reader, self.key)

    def given(self, reader: Reader, problems: Sequence[Problem]) -> list[list[Given]]:
        """Without the tokens that stand for an image, of which its size decides."""
        asked = image_prompts(self.task, problems, reader, self.key)
        return [[Given(reader.encode(one), self.task.max_new_tokens)] for one in asked]

    def run(self, engine: TextEngine, problems: Sequence[Problem]) -> list[Answer]:
        """See `TaskRunner`; a model that takes no images is asked the question alone."""
        task, takes_images = self.task, engine.reader.takes_images
        asked = image_prompts(task, problems, engine.reader, self.key)
        how = Greedy(task.max_new_tokens, task.stop, task.thinking)
        if takes_images:
            images = [problem.image or b"" for problem in problems]
            texts = engine.generate(asked, how, images)
        else:
            texts = engine.generate([one.strip() for one in asked], how)
        return judged(self.name, task, problems, texts)

    def scores(self, outcomes: Sequence[Answer], split: str) -> dict[str, Score]:
        return answer_scores(self.task, outcomes)

    def remark(self, outcomes: Sequence[Answer]) -> str:
        return answer_remark(self.key, outcomes)

    def answered(self, row: Stored) -> Answered:
        return answered_text(row)

    def _of_source(self, source: DataSource, where: str) -> list[Problem]:
        require_pillow()
        folder, name = Path(source.path).parent, self.task.image
        return [
            self.problem(
                {**row, name: image_bytes(column(name, row, place), folder, place)},
                source.answer,
                place,
            )
            for place, row in load_rows(source, where)
        ]


RUNNER = VqaRunner
