"""Dev in quarters, on which finalists are raced; the same ones for all of a study's trials."""

from collections.abc import Sequence

from evomerge_optuna.evaluation.blocks import WHOLE, Block
from evomerge_optuna.evaluation.evaluator import Evaluation
from evomerge_optuna.evaluation.tasks import Tasks
from evomerge_optuna.spec import StudySpec

QUARTERS = 4
_LEAST = 5  # problems that say enough to leave anyone behind
Part = tuple[float, float]  # the first objective's score of a quarter, and its number of problems


def dev_blocks(spec: StudySpec, tasks: Tasks) -> list[Block]:
    """The quarters; the whole where a task has too few problems, or its score is no mean of them.

    Raises:
        SpecError: dev cannot be loaded.
    """
    asked = [runner for runner in tasks.values() if "dev" in runner.splits]
    if not tasks[spec.objective.task].is_mean:
        return [WHOLE]
    if any(len(runner.problems("dev")) < QUARTERS * _LEAST for runner in asked):
        return [WHOLE]
    return [Block(number, QUARTERS, spec.sampler.seed) for number in range(QUARTERS)]


def parts_of(spec: StudySpec, scored: Sequence[Evaluation], blocks: int) -> list[Part]:
    """The first objective on each quarter; where dev is one block, a quarter of it each time.

    Args:
        scored: on the first of the blocks.
        blocks: how many there are in all.
    """
    target = spec.objective.target  # whose task may have no dev split where another has one
    scores = [found.scores[target] for found in scored if target in found.scores]
    times = QUARTERS // blocks
    return [(score.value, score.n / times) for score in scores for _ in range(times)]
