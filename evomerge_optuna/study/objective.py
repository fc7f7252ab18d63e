"""The objective: one trial from suggested parameters to stored scores."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import StorageError
from evomerge_optuna.evaluation.costs import model_costs
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.merging.merged import Merged, Merger
from evomerge_optuna.merging.merger import EveryMerger
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.study.racing import Race
from evomerge_optuna.study.studies import RECIPE, MergeStudy
from evomerge_optuna.study.trials import STOPPED, Trials, is_feasible

# Trial attributes that the objective records.
DIGEST, SCORES, COSTS, SECONDS = "sha256", "scores", "costs", "seconds"
THREADS = "threads"  # that computed it: sums round by how they are divided, and so the digest
DEV = "dev"  # scores on dev, of a trial that was the best when it ended
SAME_AS = "same_as"  # the number of the trial whose recipe, and so whose scores, this one repeats
PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True)
class Candidate:
    """A model, valid until the next merge, its scores and costs, and where the time went."""

    merged: Merged
    threads: int
    evaluation: Evaluation
    costs: dict[str, float]
    seconds: dict[str, float]


class Objective:
    """Builds and scores the recipe of a trial, and records both with it."""

    def __init__(
        self, merge_study: MergeStudy, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._study = merge_study
        self._say = say
        self._merger = EveryMerger(merge_study.spec.evaluation, say)
        self._evaluator = Evaluator(merge_study.spec)
        racing = merge_study.spec.racing
        self._race = None if racing is None else Race(merge_study, racing, self._evaluator)

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """The objectives' values.

        Raises:
            CandidateError: the candidate cannot be built or scored.
        """
        recipe = self._study.space.suggest(trial)
        if RECIPE not in trial.user_attrs:  # of a trial that was queued
            trial.set_user_attr(RECIPE, recipe.model_dump(mode="json"))
        if (alike := self._scored_alike(recipe)) is not None:
            return self._repeat(trial, alike)
        candidate = build_and_score(recipe, self._merger, partial(self._score, trial))
        trial.set_user_attr(DIGEST, candidate.merged.digest)
        trial.set_user_attr(THREADS, candidate.threads)
        trial.set_user_attr(SCORES, as_stored(candidate.evaluation.scores))
        trial.set_user_attr(COSTS, candidate.costs)
        values = self._values(trial)
        begin = time.perf_counter()
        before = self._study.read()
        if self._is_champion(trial, values, before):
            self._confirm(trial, candidate.merged)
        seconds = candidate.seconds | {"confirm": round(time.perf_counter() - begin, 4)}
        trial.set_user_attr(SECONDS, seconds)
        if self._is_best(values, before):
            self._keep_outcomes(trial, candidate.evaluation)
        return values

    def _score(self, trial: optuna.Trial, merged: Merged) -> Evaluation:
        if self._race is not None:
            return self._race.score(trial, merged)
        return self._evaluator.evaluate(
            merged.model, merged.tokenizer, "search", processor=merged.processor
        )

    def _repeat(self, trial: optuna.Trial, alike: FrozenTrial) -> list[float]:
        """Gives the trial all that was found of its recipe before; of a stopped one no more."""
        trial.set_user_attr(SAME_AS, alike.number)
        for name in (DIGEST, THREADS, SCORES, COSTS, STOPPED):
            if name in alike.user_attrs:
                trial.set_user_attr(name, alike.user_attrs[name])
        for block, score in alike.intermediate_values.items():
            trial.report(score, block)
        return self._values(trial)

    def _values(self, trial: optuna.Trial) -> list[float]:
        """What the recorded measures are worth; sets the constraints, too."""
        spec = self._study.spec
        measures = dict(trial.user_attrs[COSTS])
        measures |= {name: score["value"] for name, score in trial.user_attrs[SCORES].items()}
        for constraint in spec.constraints:
            violation = constraint.violation(measures[constraint.target])
            trial.set_constraint(str(constraint), violation)
        return [measures[objective.target] for objective in spec.objectives]

    def _scored_alike(self, recipe: Recipe) -> FrozenTrial | None:
        """A scored trial of the same recipe: the same weights, so the same scores."""
        dumped = recipe.model_dump(mode="json")
        scored = self._study.read().of(TrialState.COMPLETE)
        return next((t for t in scored if t.user_attrs.get(RECIPE) == dumped), None)

    def _is_champion(self, trial: optuna.Trial, values: Sequence[float], before: Trials) -> bool:
        """Is it better than every trial before in the only objective?"""
        if len(values) > 1 or STOPPED in trial.user_attrs:
            return False
        if self._study.spec.constraints and not is_feasible(trial):
            return False
        return before.best is None or not before.reaches(before.best, values)

    def _confirm(self, trial: optuna.Trial, merged: Merged) -> None:
        """Scores it on dev too, which the search never sees: it is likely a finalist."""
        if self._study.spec.has_dev:
            found = self._evaluator.evaluate(
                merged.model, merged.tokenizer, "dev", processor=merged.processor
            )
            trial.set_user_attr(DEV, as_stored(found.scores))

    def _is_best(self, values: Sequence[float], before: Trials) -> bool:
        """Is no trial before at least as good in all objectives?"""
        return not any(before.reaches(other, values) for other in before.rankable)

    def _keep_outcomes(self, trial: optuna.Trial, evaluation: Evaluation) -> None:
        rows = json_lines(evaluation.rows())
        try:
            self._study.store.artifacts.attach(trial, PROBLEMS_FILE, rows, "application/jsonl")
        except StorageError as error:
            # A score may have taken an hour; the answers behind it are only there to be read.
            self._say(f"trial {trial.number} keeps its score, not its answers: {error}")


def build_and_score(
    recipe: Recipe, merger: Merger, score: Callable[[Merged], Evaluation]
) -> Candidate:
    """Builds the recipe's model and scores it.

    Raises:
        CandidateError: the candidate cannot be built, or a score is not finite.
    """
    import torch

    start = time.perf_counter()
    merged = merger.merge(recipe)
    built = time.perf_counter()
    evaluation = score(merged)
    evaluation.require_finite()
    scored = time.perf_counter()
    seconds = {"merge": round(built - start, 4), "score": round(scored - built, 4)}
    costs = model_costs(merged.model)
    return Candidate(merged, torch.get_num_threads(), evaluation, costs, seconds)


def as_stored(scores: dict[str, Score]) -> dict[str, dict[str, float]]:
    """Scores as an attribute of a trial or study has them."""
    return {name: asdict(score) for name, score in scores.items()}


def as_scored(trial: FrozenTrial) -> AbstractContextManager[None]:
    """Within the block a recipe gives the tensors that the trial was scored with, bit for bit."""
    from evomerge_optuna.machine import threads

    return threads(trial.user_attrs[THREADS])


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One JSON document a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
