"""The objective: one trial from suggested parameters to stored scores."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.merging.merger import EveryMerger, Merger
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.study.studies import MergeStudy

# Trial attributes that the objective records.
RECIPE, DIGEST, SCORES, SECONDS = "recipe", "sha256", "scores", "seconds"
SAME_AS = "same_as"  # the number of the trial whose recipe, and so whose scores, this one repeats
PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True)
class Candidate:
    """A model by its digest (see `Merged`), its scores, and where the time went."""

    digest: str
    evaluation: Evaluation
    seconds: dict[str, float]


class Objective:
    """Builds and scores the recipe of a trial, and records both with it."""

    def __init__(
        self, merge_study: MergeStudy, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._study = merge_study
        self._merger = EveryMerger(merge_study.spec.evaluation, say)
        self._evaluator = Evaluator(merge_study.spec)

    def __call__(self, trial: optuna.Trial) -> float:
        """The objective's value.

        Raises:
            CandidateError: the candidate cannot be built or scored.
        """
        recipe = self._study.space.suggest(trial)
        trial.set_user_attr(RECIPE, recipe.model_dump(mode="json"))
        if (alike := self._scored_alike(recipe)) is not None:
            return _copied(trial, alike)
        candidate = build_and_score(recipe, self._merger, self._evaluator, "search")
        trial.set_user_attr(DIGEST, candidate.digest)
        trial.set_user_attr(
            SCORES, {name: asdict(score) for name, score in candidate.evaluation.scores.items()}
        )
        trial.set_user_attr(SECONDS, candidate.seconds)
        value = candidate.evaluation.scores[self._study.spec.objective.target].value
        if self._is_best(value):
            self._keep_outcomes(trial, candidate.evaluation)
        return value

    def _scored_alike(self, recipe: Recipe) -> FrozenTrial | None:
        """A scored trial of the same recipe: the same weights, so the same scores."""
        dumped = recipe.model_dump(mode="json")
        scored = self._study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return next((t for t in scored if t.user_attrs.get(RECIPE) == dumped), None)

    def _is_best(self, value: float) -> bool:
        best = self._study.best()
        if best is None:
            return True
        better = value > best.values[0]
        return better if self._study.spec.objective.direction == "maximize" else not better

    def _keep_outcomes(self, trial: optuna.Trial, evaluation: Evaluation) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / PROBLEMS_FILE
            file.write_text(json_lines(evaluation.rows()), encoding="utf-8")
            upload_artifact(
                artifact_store=self._study.store.artifacts,
                file_path=str(file),
                study_or_trial=trial,
                mimetype="application/jsonl",
            )


def build_and_score(recipe: Recipe, merger: Merger, evaluator: Evaluator, split: str) -> Candidate:
    """Builds the recipe's model and scores it on one split.

    Raises:
        CandidateError: the candidate cannot be built or scored.
    """
    start = time.perf_counter()
    merged = merger.merge(recipe)
    built = time.perf_counter()
    evaluation = evaluator.evaluate(merged.model, merged.tokenizer, split)
    evaluation.require_finite()
    scored = time.perf_counter()
    seconds = {"merge": round(built - start, 4), "score": round(scored - built, 4)}
    return Candidate(merged.digest, evaluation, seconds)


def _copied(trial: optuna.Trial, scored: FrozenTrial) -> float:
    """Answers a trial from the history: what the scored one recorded, and which that is."""
    trial.set_user_attr(SAME_AS, scored.number)
    for name in (DIGEST, SCORES):
        trial.set_user_attr(name, scored.user_attrs[name])
    return float(scored.values[0])


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One JSON document a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
