"""The evaluator: a model in, scores with intervals and every problem's outcome out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import chain, islice

from evomerge_optuna.engines.base import Engine
from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.evaluation.blocks import WHOLE, Block
from evomerge_optuna.evaluation.day import on_day
from evomerge_optuna.evaluation.reading import NamedReader, read_prompts
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.evaluation.tasks import Outcome, Tasks, runners
from evomerge_optuna.spec import StudySpec


@dataclass(frozen=True)
class Evaluation:
    """All tasks of a spec on one split: scores by `TASK.METRIC`, and the outcomes behind them.

    The remarks say by task what a reader of the scores should know, in a line.
    """

    split: str
    scores: dict[str, Score]
    outcomes: tuple[Outcome, ...] = field(repr=False)
    remarks: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, object]]:
        """The outcomes as JSON-serialisable rows, in the order of the data, or of the blocks."""
        return [asdict(outcome) for outcome in self.outcomes]

    def marks(self) -> dict[str, str]:
        """By task a 1 for each problem answered right and a 0 for each other, in order.

        Tasks with a problem that is no matter of right and wrong have none.
        """
        marks: dict[str, list[bool | None]] = {}
        for outcome in self.outcomes:
            marks.setdefault(outcome.task, []).append(outcome.mark())
        return {
            task: "".join(str(int(bool(mark))) for mark in found)
            for task, found in marks.items()
            if None not in found
        }

    def require_finite(self) -> None:
        """Refuses what no sampler can learn from.

        Raises:
            NotFiniteError: a score is NaN or infinite.
        """
        for metric, score in self.scores.items():
            if not math.isfinite(score.value):
                raise NotFiniteError(
                    f"{metric} on {self.split} is {score.value}, not a finite number"
                )


class Evaluator:
    """Scores models on the tasks of a spec; data is loaded once for each split.

    Args:
        day: that chat templates tell; None: the day on which a model is scored.
        tasks: what runs the spec's tasks, where that is made already, its data loaded.
    """

    def __init__(
        self, spec: StudySpec, day: date | None = None, tasks: Tasks | None = None
    ) -> None:
        self._day = day
        self._runners = runners(spec.tasks) if tasks is None else tasks

    def load(self, split: str) -> None:
        """Loads the problems and shots of a split.

        Raises:
            SpecError: they cannot be loaded.
        """
        for runner in self._runners.values():
            if split in runner.splits:
                runner.problems(split)
                runner.shots()

    def check(self, reader: NamedReader, split: str) -> None:
        """Looks through the prompts of a split before a model is loaded.

        Raises:
            SpecError: it cannot be asked so, see `read_prompts`.
        """
        read_prompts(self._runners, [reader], self._day, [split])

    def evaluate(
        self,
        engine: Engine,
        split: str,
        *,
        without_images: bool = False,
    ) -> Evaluation:
        """Asks the engine about every task that has this split; a score may be NaN or infinite.

        Args:
            without_images: is a model that takes no images asked the questions of images alone?

        Raises:
            CandidateError: no text of a perplexity task has anything to predict, or the code of a
                python task fails.
            NotFiniteError: the likelihood of an option is NaN.
            SpecError: the data cannot be loaded, the tokenizer has no chat template where one is
                asked for, code is not allowed or not as it should be, a task needs what the engine
                has not, or a task has images and the model takes none.
        """
        (found,) = self.evaluate_blocks(engine, split, [WHOLE], without_images=without_images)
        return found

    def evaluate_blocks(
        self,
        engine: Engine,
        split: str,
        blocks: Sequence[Block],
        *,
        without_images: bool = False,
    ) -> list[Evaluation]:
        """The same of each of these blocks of a split, whose problems are run together."""
        (found,) = self._evaluate([engine], engine, split, blocks, without_images)
        return found

    def evaluate_joined(
        self, engines: Sequence[Engine], joined: Engine, split: str, blocks: Sequence[Block]
    ) -> list[list[Evaluation]]:
        """As `evaluate_blocks` of each engine, which are asked at once where a task can be.

        Args:
            joined: asks all of them; see `JoiningBuilder.join`.
        """
        return self._evaluate(engines, joined, split, blocks, without_images=False)

    def _evaluate(
        self,
        engines: Sequence[Engine],
        joined: Engine,
        split: str,
        blocks: Sequence[Block],
        without_images: bool,
    ) -> list[list[Evaluation]]:
        found: list[list[list[Outcome]]] = [[[] for _ in blocks] for _ in engines]
        for runner in self._runners.values():
            if split not in runner.splits:
                continue
            if not without_images:
                runner.check_reader(joined.reader)
            parts = [block.of(runner.problems(split)) for block in blocks]
            problems = list(chain.from_iterable(parts))
            with on_day(self._day):
                if runner.asks_in_order:
                    outcomes = iter(runner.run(joined, problems * len(engines)))
                else:
                    outcomes = chain.from_iterable(runner.run(one, problems) for one in engines)
                for own in found:
                    for block, part in zip(own, parts, strict=True):
                        block += islice(outcomes, len(part))
        return [[self._score(split, outcomes) for outcomes in own] for own in found]

    def join(self, blocks: Sequence[Evaluation]) -> Evaluation:
        """The evaluation of these blocks of a split as one, its outcomes block by block."""
        return self._score(blocks[0].split, [o for block in blocks for o in block.outcomes])

    def parts(self, whole: Evaluation, blocks: Sequence[Block]) -> list[Evaluation]:
        """What an evaluation on a whole split says of these blocks of it."""
        tasks = [[o for o in whole.outcomes if o.task == name] for name in self._runners]
        found = [[o for outcomes in tasks for o in block.of(outcomes)] for block in blocks]
        return [self._score(whole.split, outcomes) for outcomes in found]

    def whole(self, parts: Sequence[Evaluation], blocks: Sequence[Block]) -> Evaluation:
        """The evaluation of all blocks of a split as one, its outcomes in the order of the data."""
        split, ordered = parts[0].split, list[Outcome]()
        for name in self._runners:
            own = [o for part in parts for o in part.outcomes if o.task == name]
            places = [place for block in blocks for place in block.of(range(len(own)))]
            ordered += [o for _, o in sorted(zip(places, own, strict=True), key=lambda p: p[0])]
        return self._score(split, ordered)

    def _score(self, split: str, outcomes: list[Outcome]) -> Evaluation:
        scores: dict[str, Score] = {}
        remarks: dict[str, str] = {}
        for name, runner in self._runners.items():
            if own := [outcome for outcome in outcomes if outcome.task == name]:
                found = runner.scores(own, split)
                # What a person is asked has no score where nobody is there.
                known = [m.name for m in runner.task.metrics if m.name in found]
                scores |= {f"{name}.{metric}": found[metric] for metric in known}
                if remark := runner.remark(own):
                    remarks[name] = remark
        return Evaluation(split, scores, tuple(outcomes), remarks)
