"""The objective: one trial from suggested parameters to stored scores."""

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact

from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator, load_model
from evomerge_optuna.merging.checkpoint import scratch_folder, write_checkpoint
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.study.studies import MergeStudy

# Trial attributes that the objective records.
RECIPE, DIGEST, SCORES, SECONDS = "recipe", "sha256", "scores", "seconds"
PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True)
class Candidate:
    """A merged model's tensors by their SHA-256, its scores, and where the time went."""

    digest: str
    evaluation: Evaluation
    seconds: dict[str, float]


class Objective:
    """Builds and scores the recipe of a trial, and records both with it."""

    def __init__(self, merge_study: MergeStudy) -> None:
        self._study = merge_study
        self._evaluator = Evaluator(merge_study.spec)

    def __call__(self, trial: optuna.Trial) -> float:
        """The objective's value.

        Raises:
            CandidateError: the candidate cannot be built or scored.
        """
        recipe = self._study.space.suggest(trial)
        trial.set_user_attr(RECIPE, recipe.model_dump(mode="json"))
        candidate = build_and_score(recipe, self._evaluator, "search", self._device)
        trial.set_user_attr(DIGEST, candidate.digest)
        trial.set_user_attr(
            SCORES, {name: asdict(score) for name, score in candidate.evaluation.scores.items()}
        )
        trial.set_user_attr(SECONDS, candidate.seconds)
        value = candidate.evaluation.scores[self._study.spec.objective.target].value
        if self._is_best(value):
            self._keep_outcomes(trial, candidate.evaluation)
        return value

    @property
    def _device(self) -> str:
        return self._study.spec.evaluation.device

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


def build_and_score(
    recipe: MergeRecipe, evaluator: Evaluator, split: str, device: str
) -> Candidate:
    """Writes the recipe's checkpoint, loads it and scores it on one split.

    Raises:
        CandidateError: the candidate cannot be built or scored.
    """
    start = time.perf_counter()
    with scratch_folder() as folder:
        digest = write_checkpoint(recipe, folder)
        merged = time.perf_counter()
        model, tokenizer = load_model(folder, device)
    loaded = time.perf_counter()
    evaluation = evaluator.evaluate(model, tokenizer, split)
    evaluation.require_finite()
    scored = time.perf_counter()
    seconds = {"merge": merged - start, "load": loaded - merged, "score": scored - loaded}
    return Candidate(digest, evaluation, {name: round(s, 4) for name, s in seconds.items()})


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One JSON document a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
