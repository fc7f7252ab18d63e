"""A recipe's model, built and scored, with what is recorded of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from evomerge_optuna.engines.base import Candidate, CandidateBuilder, Engine
from evomerge_optuna.evaluation.evaluator import Evaluation
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.study.result import Result


@dataclass(frozen=True)
class Scored:
    """A candidate's engine, as long as it is valid, its answers, and what is recorded."""

    engine: Engine
    evaluation: Evaluation
    result: Result


def build_and_score(
    recipe: Recipe, builder: CandidateBuilder, score: Callable[[Engine], Evaluation]
) -> Scored:
    """Builds the recipe's model and scores it.

    Raises:
        CandidateError: the candidate cannot be built, or a score is not finite.
    """
    start = time.perf_counter()
    candidate = builder.build(recipe)
    built = time.perf_counter()
    evaluation = score(candidate.engine)
    return scored(recipe, candidate, evaluation, built - start, time.perf_counter() - built)


def scored(
    recipe: Recipe, candidate: Candidate, evaluation: Evaluation, merge: float, score: float
) -> Scored:
    """A candidate with its evaluation.

    Args:
        merge: the seconds that it took to build.
        score: those that it took to ask; of several that were asked at once, its share.

    Raises:
        CandidateError: a score is not finite.
    """
    import torch

    evaluation.require_finite()
    start = time.perf_counter()
    digest = candidate.digest  # taken meanwhile
    waited = time.perf_counter() - start
    result = Result(
        recipe.digest(),
        digest,
        torch.get_num_threads(),
        evaluation.scores,
        candidate.engine.costs(),
        {"merge": round(merge, 4), "score": round(score + waited, 4)},
    )
    return Scored(candidate.engine, evaluation, result)
