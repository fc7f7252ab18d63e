"""One candidate of a spec is built and asked here, to say what a search will take."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.evaluation.day import on_day
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.evaluation.tasks import Outcome
from evomerge_optuna.evaluation.tasks.generate import Answer
from evomerge_optuna.explain import one_line
from evomerge_optuna.ready import allow_code_of
from evomerge_optuna.spec import ImageTask, StudySpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy

_FIRST = 8  # problems, to see how long they take
_GROWTH = 8  # so many times as many are asked next
_PATIENCE = 20.0  # seconds, if that takes no longer
_SHOWN = 120  # characters of a text
FEWEST, MOST = 10, 1000  # trials that are proposed


@dataclass(frozen=True)
class Tried:
    """What the uniform merge took, and what it was worth.

    Attributes:
        build: seconds to merge.
        ask: seconds to score it on all problems of the search, as far as `asked` of them tell.
        asked: how many problems were asked, of all tasks.
        problems: how many there are.
        scores: on those that were asked, by `TASK.METRIC`.
        outcomes: of those.
    """

    build: float
    ask: float
    asked: int
    problems: int
    scores: dict[str, Score]
    outcomes: tuple[Outcome, ...]

    @property
    def seconds(self) -> float:
        """Of a trial."""
        return self.build + self.ask

    def example(self) -> str | None:
        """A question, what the merge answered, and what was right; None where nothing is said."""
        answers = [outcome for outcome in self.outcomes if isinstance(outcome, Answer)]
        if not answers:
            return None
        shown = next((answer for answer in answers if answer.right), answers[0])
        asked, said, right = (
            one_line(text, _SHOWN) for text in (shown.prompt, shown.text, shown.reference)
        )
        return f"for example: {asked!r} was answered by {said!r}; right is {right!r}"

    def trials_in(self, minutes: float) -> int:
        """How many trials a search of so many minutes has time for, within sensible bounds."""
        return max(FEWEST, min(MOST, math.floor(60 * minutes / max(self.seconds, 1e-3))))


def try_spec(spec: StudySpec, say: Callable[[str], None]) -> Tried | None:
    """Makes the study of a spec with all checks, in a place that is removed, and asks a candidate.

    Args:
        say: is given what a creation says, as of the memory that it needs.

    Returns:
        None where a person would be asked about the pictures.

    Raises:
        EvomergeError: the study cannot be made, or its candidate not built or scored.
    """
    with tempfile.TemporaryDirectory(prefix="evomerge-try-") as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'try.db'}")
        allow_code_of(spec)
        study = create_study(store, spec, say)
        asks_a_person = any(isinstance(t, ImageTask) and t.human for t in spec.tasks.values())
        return None if asks_a_person else _tried(study)


def _tried(study: MergeStudy) -> Tried:
    builder = candidate_builder(study.spec.evaluation)
    recipe = study.space.recipe(study.space.baseline())
    builder.load(recipe, study.space.layers_of())
    builder.build(recipe)  # the first one reads what the others find in memory
    start = time.perf_counter()
    engine = builder.build(recipe).engine
    build = time.perf_counter() - start
    counts = [len(runner.problems("search")) for runner in study.tasks.values()]
    _ask(study, engine, 1)  # the first answer takes longest
    asked = _FIRST
    while True:
        start = time.perf_counter()
        outcomes, scores = _ask(study, engine, asked)
        took = time.perf_counter() - start
        parts = [min(asked, count) for count in counts]
        if asked >= max(counts) or took * _GROWTH > _PATIENCE:
            break
        asked *= _GROWTH
    ask = took * sum(counts) / sum(parts)
    return Tried(build, ask, sum(parts), sum(counts), scores, tuple(outcomes))


def _ask(study: MergeStudy, engine: object, most: int) -> tuple[list[Outcome], dict[str, Score]]:
    """Asks the first problems of every task, at most so many of each."""
    outcomes: list[Outcome] = []
    scores: dict[str, Score] = {}
    with on_day(study.day):
        for name, runner in study.tasks.items():
            own = list(runner.run(engine, runner.problems("search")[:most]))
            found = runner.scores(own, "search")
            scores |= {f"{name}.{metric}": score for metric, score in found.items()}
            outcomes += own
    return outcomes, scores
