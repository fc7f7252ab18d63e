"""The data of all tasks: checked before a study begins, and hashed, so that a change is noticed."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks import Tasks

_SHOTS = "the shots"


def check_data(tasks: Tasks) -> None:
    """Loads every split and refuses a problem that occurs in two of them, or among the shots.

    Splits of different tasks are compared, too: what one task searches on, no task may test on, nor
    what one task has among its shots; though another may search on that.
    Problems are the same where what the data puts into their prompts is, in NFKC and with any white
    space as one blank.

    Raises:
        SpecError: also where a split cannot be loaded, an answer has no number to compare, or what
            judges answers is not there.
    """
    for runner in tasks.values():
        runner.check_judges()
    shots = {name: {_identity(shot) for shot in task.shots()} for name, task in tasks.items()}
    # The task and the place where a problem first occurs.
    seen = {shot: (name, _SHOTS) for name, found in shots.items() for shot in found}
    for runner in tasks.values():
        for split in runner.splits:
            for problem in runner.problems(split):
                identity = _identity(problem)
                task, first = seen.setdefault(identity, (runner.name, split))
                if identity in shots[runner.name]:
                    task, first = runner.name, _SHOTS
                searches_on = split == "search" and first == _SHOTS and task != runner.name
                if first != split and not searches_on:
                    place, other = first, "" if task == runner.name else f" of tasks.{task}"
                    raise SpecError(
                        f"{runner.key}.data: a problem of {place}{other} occurs again in "
                        f"{split}: {problem.text[:60]!r}; splits must not overlap"
                    )
                runner.check(problem, f"{runner.key}.data.{split}")


def fingerprint_data(tasks: Tasks) -> dict[str, str]:
    """SHA-256 of the problems of every split, of the shots, and of what else judges answers.

    By their place in the spec.

    Raises:
        SpecError: a split cannot be loaded.
    """
    found = {}
    for runner in tasks.values():
        for split in runner.splits:
            found[f"{runner.key}.data.{split}"] = _sha256(runner.problems(split))
        if shots := runner.shots():
            found[f"{runner.key}.shots"] = _sha256(shots)
        found |= runner.judges()
    return found


def _identity(problem: Problem) -> bytes:
    """Hashes what is asked, as far as a reader would see a difference."""
    words = unicodedata.normalize("NFKC", problem.content).split()
    return hashlib.sha256(" ".join(words).encode() + b"\0" + (problem.image or b"")).digest()


def _sha256(problems: Sequence[Problem]) -> str:
    facts = json.dumps([problem.facts() for problem in problems])
    return hashlib.sha256(facts.encode()).hexdigest()
