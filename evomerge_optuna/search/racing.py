"""Racing: a candidate is scored block by block, and stopped once it is surely worse than the best.

Optuna's WilcoxonPruner decides: the signed-rank test of this candidate's blocks and the same blocks
of the best. It knows that one trial alone, so what is stopped depends on finished trials and on
nothing that ends with the process. As Optuna advises for it, a stopped trial is complete and its
value is its score so far.
"""

import warnings
from collections.abc import Generator, Sequence
from typing import TypeAlias, cast

import optuna
from optuna.pruners import WilcoxonPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.engines.base import Engine
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.spec import RacingSpec
from evomerge_optuna.study.schema import STOPPED
from evomerge_optuna.study.studies import MergeStudy

# Gives the blocks that are to be run next, takes their evaluations, and comes to that of the whole.
Course: TypeAlias = Generator[list[Block], Sequence[Evaluation] | None, Evaluation]


class Race:
    """Scores the candidates of a study on its search split."""

    def __init__(self, merge_study: MergeStudy, racing: RacingSpec, evaluator: Evaluator) -> None:
        self._study = merge_study
        self._evaluator = evaluator
        count, seed = racing.blocks, merge_study.spec.sampler.seed
        self._blocks = [Block(number, count, seed) for number in range(count)]
        self._undecided = racing.undecided
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._pruner = WilcoxonPruner(p_threshold=racing.p_threshold)

    def score(self, trial: optuna.Trial, engine: Engine, best: FrozenTrial | None) -> Evaluation:
        """The evaluation on all problems, or on those before the candidate was stopped.

        Raises:
            CandidateError: a block cannot be scored, or its score is not finite.
        """
        course = self.course(trial, best)
        blocks = next(course)
        while True:
            found = self._evaluator.evaluate_blocks(engine, "search", blocks)
            try:
                blocks = course.send(found)
            except StopIteration as end:
                return cast(Evaluation, end.value)

    def course(self, trial: optuna.Trial, best: FrozenTrial | None) -> Course:
        """The race of a candidate, whoever asks it.

        Every block's score is reported; a stopped trial's attribute says after how many problems.

        Args:
            best: the trial to race against; None: there is none yet.

        Raises:
            CandidateError: a block's score is not finite.
        """
        target = self._study.spec.objective.target
        scored: list[Evaluation] = []
        reported: dict[int, float] = {}
        for blocks in self._run_together(best):
            for block, found in zip(blocks, (yield blocks) or (), strict=True):
                found.require_finite()
                scored.append(found)
                reported[block.number] = found.scores[target].value
                _report(trial, reported[block.number], block)
            so_far = self._evaluator.join(scored)
            if len(scored) == len(self._blocks) or best is None:
                continue
            if self._is_lost(best, so_far.scores[target].value, reported):
                trial.set_user_attr(STOPPED, len(so_far.outcomes))
                break
        return so_far

    def _run_together(self, best: FrozenTrial | None) -> list[list[Block]]:
        """The blocks in groups, after each of which a candidate may be stopped."""
        if best is None:
            return [self._blocks]
        first = self._undecided + 1
        return [self._blocks[:first], *([block] for block in self._blocks[first:])]

    def _is_lost(self, best: FrozenTrial, value: float, reported: dict[int, float]) -> bool:
        objective = self._study.spec.objective
        if objective.sign * value >= objective.sign * best.values[0]:
            return False  # it would become the best, which only a score on all problems can be
        race = optuna.create_study(direction=objective.direction)
        race.add_trial(
            create_trial(value=best.values[0], intermediate_values=best.intermediate_values)
        )
        running = create_trial(state=TrialState.RUNNING, intermediate_values=reported)
        return self._pruner.prune(race, running)


def _report(trial: optuna.Trial, score: float, block: Block) -> None:
    with warnings.catch_warnings():
        # Where several candidates were asked at once and one failed, the others run once more.
        warnings.filterwarnings("ignore", "The reported value is ignored")
        trial.report(score, block.number)
