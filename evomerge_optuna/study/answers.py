"""Answers kept as artifacts: of each trial that was the best when it ended, and of all that `study
test` scores."""

import json
import re
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from evomerge_optuna.errors import StorageError
from evomerge_optuna.evaluation.evaluator import Evaluation
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.store.artifacts import attached
from evomerge_optuna.store.optuna_internals import study_attributes
from evomerge_optuna.study.schema import RESULT, TRIAL_ANSWERS, final_answers
from evomerge_optuna.study.studies import MergeStudy

Rows = list[dict[str, Any]]  # outcomes as they are stored


def keep_answers(
    merge_study: MergeStudy,
    trial: optuna.Trial,
    evaluation: Evaluation,
    say: Callable[[str], None],
) -> None:
    """Attaches a running trial's answers to it. If that fails, says so and goes on."""
    name = TRIAL_ANSWERS[evaluation.split]
    _keep(merge_study, trial, name, evaluation, f"trial {trial.number}", say)


def keep_final_answers(
    merge_study: MergeStudy,
    name: str,
    identity: str,
    evaluation: Evaluation,
    say: Callable[[str], None],
) -> None:
    """Attaches the answers of a row of the final table to the study.

    Args:
        name: the row's.
        identity: of what was scored.
    """
    start, end = final_answers(evaluation.split, identity)
    file = start + re.sub(r"[^\w.]+", "-", name) + end
    _keep(merge_study, merge_study.study, file, evaluation, name, say)


def stored_answers(merge_study: MergeStudy, identity: str, split: str) -> Rows | None:
    """The answers on a split of what has this identity; None where none are stored.

    Args:
        identity: a recipe's digest, or the hash of a source's weights.

    Raises:
        StorageError: the artifact store cannot be read, or an artifact is damaged.
    """
    study = merge_study.study
    start, end = final_answers(split, identity)
    for name, artifact in attached(study_attributes(study)):
        if name.startswith(start) and name.endswith(end):
            rows = _read(merge_study, artifact)
            if rows is not None:
                return rows
    for trial in merge_study.trials():
        if trial.user_attrs.get(RESULT, {}).get("recipe") == identity:
            found = answers_of_trial(merge_study, trial, split)
            if found is not None:
                return found
    return None


def latest_answers(merge_study: MergeStudy, identity: str) -> tuple[Rows | None, str]:
    """The answers on the last split of search, dev, test that has some stored, and that split."""
    for split in reversed(SPLITS):
        if (rows := stored_answers(merge_study, identity, split)) is not None:
            return rows, split
    return None, SPLITS[0]


def answers_of_trial(merge_study: MergeStudy, trial: FrozenTrial, split: str) -> Rows | None:
    """The answers that a trial was scored by; None where none are stored.

    Raises:
        StorageError: the artifact store cannot be read, or an artifact is damaged.
    """
    for name, artifact in attached(trial.system_attrs):
        if name == TRIAL_ANSWERS.get(split):
            rows = _read(merge_study, artifact)
            if rows is not None:
                return rows
    return None


def json_lines(rows: Rows) -> str:
    """One JSON document a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _keep(
    merge_study: MergeStudy,
    owner: optuna.Trial | optuna.Study,
    file: str,
    evaluation: Evaluation,
    whose: str,
    say: Callable[[str], None],
) -> None:
    rows = json_lines(evaluation.rows())
    try:
        merge_study.store.artifacts.attach(owner, file, rows, "application/jsonl")
    except StorageError as error:
        # A score may have taken an hour; the answers behind it are only there to be read.
        say(f"{whose} keeps its score, not its answers: {error}")


def _read(merge_study: MergeStudy, artifact: str) -> Rows | None:
    """The rows of an artifact; None where it is not there any more."""
    from optuna.artifacts.exceptions import ArtifactNotFound  # imports boto3

    try:
        with merge_study.store.artifacts.open_reader(artifact) as file:
            content = file.read()
    except (ArtifactNotFound, ValueError):  # the latter: of a path, not an id
        return None
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError as error:
        raise StorageError(
            f"artifact {artifact} in {merge_study.store.artifacts} is damaged; restore it"
        ) from error
