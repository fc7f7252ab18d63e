"""The data of all tasks: checked before a study begins, and hashed, so that a change is noticed."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.spec import Task


def check_data(tasks: dict[str, Task]) -> None:
    """Loads every split and refuses a problem that occurs in two of them, or among the shots.

    Raises:
        SpecError: also where a split cannot be loaded, or an answer has no number to compare.
    """
    for runner in runners(tasks).values():
        seen = {(shot.text, shot.image): "the shots" for shot in runner.shots()}
        for split in runner.splits:
            for problem in runner.problems(split):
                key = (problem.text, problem.image)
                if seen.setdefault(key, split) != split:
                    raise SpecError(
                        f"{runner.key}.data: a problem of {seen[key]} occurs again in "
                        f"{split}: {problem.text[:60]!r}; splits must not overlap"
                    )
                runner.check(problem, f"{runner.key}.data.{split}")


def fingerprint_data(tasks: dict[str, Task]) -> dict[str, str]:
    """SHA-256 of the problems of every split, and of the shots, by their place in the spec.

    Raises:
        SpecError: a split cannot be loaded.
    """
    found = {}
    for runner in runners(tasks).values():
        for split in runner.splits:
            found[f"{runner.key}.data.{split}"] = _sha256(runner.problems(split))
        if shots := runner.shots():
            found[f"{runner.key}.shots"] = _sha256(shots)
    return found


def _sha256(problems: Sequence[Problem]) -> str:
    return hashlib.sha256(json.dumps([_row(problem) for problem in problems]).encode()).hexdigest()


def _row(problem: Problem) -> list[Any]:
    row: list[Any] = [problem.text, problem.reference]
    if problem.options:
        row.append(problem.options)
    if problem.image is not None:
        row.append(hashlib.sha256(problem.image).hexdigest())
    return row
