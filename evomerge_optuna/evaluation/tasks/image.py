"""Pictures drawn from prompts, and what scorers say of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from evomerge_optuna.engines.base import Drawing, ImageEngine, Picture
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answered import Answered, Stored, verdict_of
from evomerge_optuna.evaluation.contact_sheet import grid, small, thumbnail
from evomerge_optuna.evaluation.image_scorers import Drawn, PictureScorer, picture_scorers
from evomerge_optuna.evaluation.person import Question, asked
from evomerge_optuna.evaluation.problem import Problem, Row, column, content, filled
from evomerge_optuna.evaluation.rows import load_rows
from evomerge_optuna.evaluation.scores import Score, mean, proportion
from evomerge_optuna.evaluation.tasks.base import Outcome, TaskRunner
from evomerge_optuna.families.base import Asked
from evomerge_optuna.spec import DataSource, ImageTask
from evomerge_optuna.spec.engines import Need
from evomerge_optuna.spec.images import MeanScorer

if TYPE_CHECKING:
    from PIL.Image import Image

AT_A_TIME = 64  # pictures that are held and scored together
SHOWN = 8  # pictures of each split that are kept with the answers, those of its first prompts


@dataclass(frozen=True)
class ImageProblem(Problem):
    """A prompt, the seed of its noise, and its row as JSON, as far as that has texts and numbers.

    `number` is its place in the split, from 0.
    """

    seed: int = 0
    negative: str = ""
    row: str = "{}"
    number: int = 0

    def facts(self) -> list[object]:
        return [*super().facts(), self.seed, self.negative, self.row]


@dataclass(frozen=True)
class Painted(Outcome):
    """One picture and its scores, by the scorers' names.

    Attributes:
        right: what the first scorer that tells right from wrong says; None where there is none.
        thumbnail: a small picture, see `contact_sheet`; of the first prompts of a split alone.
    """

    prompt: str
    seed: int
    scores: dict[str, float]
    right: bool | None = None
    thumbnail: str | None = None

    def mark(self) -> bool | None:
        return self.right


class ImageRunner(TaskRunner[ImageTask]):
    """Has the pictures drawn, and asks each scorer about some at a time, a person about all."""

    asks: ClassVar[Asked] = "images"
    has_answers: ClassVar[bool] = True

    @property
    def needs(self) -> Need:
        return "drawing"

    @cached_property
    def _scorers(self) -> dict[str, PictureScorer[Any]]:
        return picture_scorers(self.task, self.key)

    def check_judges(self) -> None:
        for scorer in self._scorers.values():
            scorer.check()

    def judges(self) -> dict[str, str]:
        found = {scorer.key: scorer.fingerprint() for scorer in self._scorers.values()}
        return {key: digest for key, digest in found.items() if digest is not None}

    def problem(self, row: Row, answer: str | None, where: str) -> ImageProblem:
        prompt, said = filled(self.task.prompt, row, where), content(self.task.prompt, row)
        if self.task.seed is not None:
            said = f"{said}\n{_seed_of(column(self.task.seed, row, where), where)}"
        return ImageProblem(
            prompt,
            content=said,
            place=where,
            negative=filled(self.task.negative, row, where),
            row=json.dumps(_plain(row), ensure_ascii=False, sort_keys=True),
        )

    def _of_source(self, source: DataSource, where: str) -> list[Problem]:
        found: list[Problem] = []
        for number, (place, row) in enumerate(load_rows(source, where)):
            problem = self.problem(row, source.answer, place)
            if self.task.seed is None:
                seed = _seed_for(number, problem.text)
            else:
                seed = _seed_of(column(self.task.seed, row, place), place)
            found.append(replace(problem, seed=seed, number=number))
        return found

    def run(self, engine: ImageEngine, problems: Sequence[Problem]) -> list[Painted]:
        wanted = [problem for problem in problems if isinstance(problem, ImageProblem)]
        how = Drawing(self.task.steps, self.task.guidance, self.task.size)
        images = engine.draw([Picture(p.text, p.seed, p.negative) for p in wanted], how)
        is_judged = bool(self.task.human) and asked() is not None
        found: list[Painted] = []
        judged: list[Image] = []
        for start in range(0, len(wanted), AT_A_TIME):
            part = wanted[start : start + AT_A_TIME]
            drawn = [
                Drawn(image, problem.text, json.loads(problem.row))
                for problem, image in zip(part, islice(images, len(part)), strict=True)
            ]
            found += self._painted(part, drawn)
            if is_judged:
                judged += [small(one.image) for one in drawn]
        if not judged:
            return found
        by_person = self._of_person(judged)
        return [replace(one, scores=one.scores | by_person) for one in found]

    def _painted(
        self, problems: Sequence[ImageProblem], drawn: Sequence[Drawn]
    ) -> Iterator[Painted]:
        scores = {name: scorer.scores(drawn) for name, scorer in self._scorers.items()}
        for name, scorer in self.task.scorers.items():
            if isinstance(scorer, MeanScorer):
                scores[name] = _weighted(scorer, scores)
        marks = next((s for s in self.task.metrics if s.kind == "share"), None)
        for place, (problem, one) in enumerate(zip(problems, drawn, strict=True)):
            yield Painted(
                self.name,
                problem.text,
                problem.seed,
                {name: values[place] for name, values in scores.items()},
                None if marks is None else bool(scores[marks.name][place]),
                thumbnail(one.image) if problem.number < SHOWN else None,
            )

    def _of_person(self, images: "Sequence[Image]") -> dict[str, float]:
        """What a person says of all pictures, by the scorers' names."""
        ask = asked()
        assert ask is not None
        sheet = grid(images)
        return {
            name: ask(Question(f"{self.name}.{name}", human.question, human.choices, sheet))
            for name, human in self.task.human.items()
        }

    def scores(self, outcomes: Sequence[Painted], split: str) -> dict[str, Score]:
        found = {}
        for metric in self.task.metrics:
            values = [o.scores[metric.name] for o in outcomes if metric.name in o.scores]
            if not values:
                continue  # nobody was there to be asked
            if metric.name in self.task.human:
                found[metric.name] = mean(values[:1])  # one for all
            elif metric.kind == "share":
                found[metric.name] = proportion([bool(value) for value in values])
            else:
                found[metric.name] = mean(values)
        return found

    def answered(self, row: Stored) -> Answered:
        said = ", ".join(f"{name} {value:.3g}" for name, value in row["scores"].items())
        prompt = f"{row['prompt']} (seed {row['seed']})"
        verdict = said or verdict_of(row["right"])
        return Answered(prompt, None, None, None, row["right"], verdict)


RUNNER = ImageRunner


def _seed_of(value: object, where: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():  # of a CSV file
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise SpecError(
            f"{where}: the seed of the noise is {str(value)[:40]!r}; write a whole number of 0 or "
            "more, or leave out seed"
        )
    return value


def _seed_for(number: int, prompt: str) -> int:
    """The same on every machine, and of no two rows alike."""
    return int.from_bytes(hashlib.sha256(f"{number} {prompt}".encode()).digest()[:4])


def _plain(row: Row) -> dict[str, object]:
    """The columns that JSON can hold; a data set may have images, too."""
    found = {}
    for name, value in row.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            continue
        found[name] = value
    return found


def _weighted(scorer: MeanScorer, found: dict[str, list[float]]) -> list[float]:
    total = sum(scorer.of.values())
    rows = zip(*(found[name] for name in scorer.of), strict=True)
    weights = [weight / total for weight in scorer.of.values()]
    return [sum(w * value for w, value in zip(weights, row, strict=True)) for row in rows]
