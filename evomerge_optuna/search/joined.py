"""Several candidates scored at once: each of their prompts is a prompt of one large batch.

How many are asked together is how many trials a worker takes at a time. They are drawn before any
of them is scored, as the trials of so many workers are. CMA-ES draws the candidates of a generation
from one distribution anyway: a batch that is a generation has the trials that one after the other
would have.
"""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial

from evomerge_optuna.engines.base import Candidate, JoiningBuilder
from evomerge_optuna.errors import CandidateError
from evomerge_optuna.evaluation.blocks import WHOLE, Block
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.search.racing import Course, Race
from evomerge_optuna.search.scored import Scored, scored
from evomerge_optuna.spec import StudySpec


@dataclass(frozen=True)
class Asked:
    """A candidate that is asked together with others.

    Attributes:
        best: the trial that it races against; None: there is none yet.
    """

    trial: optuna.Trial
    best: FrozenTrial | None
    recipe: Recipe


def candidates_at_once(spec: StudySpec, parameters: int) -> int:
    """How many candidates are asked at once: those of a spec, or a generation of CMA-ES.

    Args:
        parameters: of the search space.
    """
    given, row = spec.evaluation.candidates, spec.sampler.row
    if given is not None or not spec.asks_at_once:
        return given or 1
    if not (row.generations and row.begins_at_start):
        return 1
    # What the library cmaes takes; a lone parameter has an idle one beside it.
    return spec.sampler.population or 4 + math.floor(3 * math.log(max(2, parameters)))


def score_joined(
    asked: Sequence[Asked], builder: JoiningBuilder, evaluator: Evaluator, race: Race | None
) -> dict[int, Scored]:
    """Candidates scored at once, by the numbers of their trials; those that fail are left out."""
    built = list[_Running]()
    for own in asked:
        course = _whole() if race is None else race.course(own.trial, own.best)
        start = time.perf_counter()
        with suppress(CandidateError):
            candidate = builder.build(own.recipe)
            built.append(_Running(own, candidate, course, time.perf_counter() - start))
    running = [one for one in built if one.goes_on(None)]
    while running:
        together = [one for one in running if one.blocks == running[0].blocks]
        engines = [one.candidate.engine for one in together]
        start = time.perf_counter()
        found = evaluator.evaluate_joined(
            engines, builder.join(engines), "search", together[0].blocks
        )
        share = (time.perf_counter() - start) / len(together)
        for one, evaluations in zip(together, found, strict=True):
            one.asking += share
            if not one.goes_on(evaluations):
                running.remove(one)
    return {one.asked.trial.number: one.scored for one in built if one.scored is not None}


@dataclass(eq=False)
class _Running:
    """A candidate on its course; times are in seconds."""

    asked: Asked
    candidate: Candidate
    course: Course
    building: float
    asking: float = 0.0
    blocks: list[Block] = field(default_factory=list)  # that it is to be asked next
    scored: Scored | None = None

    def goes_on(self, found: Sequence[Evaluation] | None) -> bool:
        """Takes the evaluations of its blocks, None at the start; are there more to be run?"""
        with suppress(CandidateError):
            try:
                self.blocks = self.course.send(found)
            except StopIteration as end:
                self.scored = scored(
                    self.asked.recipe, self.candidate, end.value, self.building, self.asking
                )
            else:
                return True
        return False


def _whole() -> Course:
    """The course without a race: all problems at once."""
    (found,) = (yield [WHOLE]) or ()
    return found
