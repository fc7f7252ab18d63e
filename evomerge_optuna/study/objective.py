"""The objective: one trial from suggested parameters to stored scores."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import StorageError
from evomerge_optuna.evaluation.costs import model_costs
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.merging.merger import EveryMerger, Merger
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.study.studies import RECIPE, MergeStudy

# Trial attributes that the objective records.
DIGEST, SCORES, COSTS, SECONDS = "sha256", "scores", "costs", "seconds"
THREADS = "threads"  # that computed it: sums round by how they are divided, and so the digest
SAME_AS = "same_as"  # the number of the trial whose recipe, and so whose scores, this one repeats
PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True)
class Candidate:
    """A model by its digest (see `Merged`), its scores and costs, and where the time went."""

    digest: str
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

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """The objectives' values.

        Raises:
            CandidateError: the candidate cannot be built or scored.
        """
        recipe = self._study.space.suggest(trial)
        trial.set_user_attr(RECIPE, recipe.model_dump(mode="json"))
        if (alike := self._scored_alike(recipe)) is not None:
            trial.set_user_attr(SAME_AS, alike.number)
            for name in (DIGEST, THREADS, SCORES, COSTS):
                trial.set_user_attr(name, alike.user_attrs[name])
            return self._values(trial)
        candidate = build_and_score(recipe, self._merger, self._evaluator, "search")
        scores = {name: asdict(score) for name, score in candidate.evaluation.scores.items()}
        trial.set_user_attr(DIGEST, candidate.digest)
        trial.set_user_attr(THREADS, candidate.threads)
        trial.set_user_attr(SCORES, scores)
        trial.set_user_attr(COSTS, candidate.costs)
        trial.set_user_attr(SECONDS, candidate.seconds)
        values = self._values(trial)
        if self._is_best(values):
            self._keep_outcomes(trial, candidate.evaluation)
        return values

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
        scored = self._study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return next((t for t in scored if t.user_attrs.get(RECIPE) == dumped), None)

    def _is_best(self, values: Sequence[float]) -> bool:
        """Is no trial before better in one objective and at least as good in all others?"""
        signs = [objective.sign for objective in self._study.spec.objectives]
        gains = [sign * value for sign, value in zip(signs, values, strict=True)]
        return not any(
            all(x >= y for x, y in zip(self._study.gains(other), gains, strict=True))
            for other in self._study.front()
        )

    def _keep_outcomes(self, trial: optuna.Trial, evaluation: Evaluation) -> None:
        rows = json_lines(evaluation.rows())
        try:
            self._study.store.artifacts.attach(trial, PROBLEMS_FILE, rows, "application/jsonl")
        except StorageError as error:
            # A score may have taken an hour; the answers behind it are only there to be read.
            self._say(f"trial {trial.number} keeps its score, not its answers: {error}")


def build_and_score(recipe: Recipe, merger: Merger, evaluator: Evaluator, split: str) -> Candidate:
    """Builds the recipe's model and scores it on one split.

    Raises:
        CandidateError: the candidate cannot be built or scored.
    """
    import torch

    start = time.perf_counter()
    merged = merger.merge(recipe)
    built = time.perf_counter()
    evaluation = evaluator.evaluate(merged.model, merged.tokenizer, split)
    evaluation.require_finite()
    scored = time.perf_counter()
    seconds = {"merge": round(built - start, 4), "score": round(scored - built, 4)}
    costs = model_costs(merged.model)
    return Candidate(merged.digest, torch.get_num_threads(), evaluation, costs, seconds)


def as_scored(trial: FrozenTrial) -> AbstractContextManager[None]:
    """Within the block a recipe gives the tensors that the trial was scored with, bit for bit."""
    from evomerge_optuna.machine import threads

    return threads(trial.user_attrs[THREADS])


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One JSON document a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
