"""Python tasks: the user's own scoring function, run only where the user has allowed it.

The function is called once for each model and split:

    def score(model, tokenizer, rows: list[dict]) -> Sequence[float]

with the model in evaluation mode on its device, its tokenizer, and the rows of the split as they
are in the data; it returns one finite number for each row, of which the mean is the task's
`score`. It may not keep or change the model, whose tensors are those of the next candidate.
"""

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.explain import one_line
from evomerge_optuna.spec import PythonTask, StudySpec

_allowed: set[str] = set()


def functions_of(spec: StudySpec) -> tuple[str, ...]:
    """The functions that a spec names, as `module:function`."""
    return tuple(task.function for task in spec.tasks.values() if isinstance(task, PythonTask))


def allow(functions: Iterable[str]) -> None:
    """Lets this process import these functions; by default it imports none.

    A stored spec may have been written by anyone who writes to the database. Call it with what the
    user of this process has named, or has looked at.
    """
    _allowed.update(functions)


def allowed() -> tuple[str, ...]:
    """The functions that this process may import, for the processes that it starts."""
    return tuple(sorted(_allowed))


def fingerprint_code(spec: StudySpec) -> dict[str, str]:
    """SHA-256 of the file of every function that the spec names, by its place in the spec.

    Raises:
        SpecError: see `load_function`.
    """
    found = {}
    for name, task in spec.tasks.items():
        if isinstance(task, PythonTask):
            key = f"tasks.{name}.function"
            load_function(task.function, key)
            file = sys.modules[task.function.partition(":")[0]].__file__
            found[key] = hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()
    return found


def load_function(function: str, key: str) -> Callable[..., Any]:
    """The function, imported from the current folder or from what is installed.

    Raises:
        SpecError: nobody has allowed it, it cannot be imported, or it is no function.
    """
    if function not in _allowed:
        raise SpecError(
            f"{key}: the spec comes from the database and would run the code of {function}; look "
            "at it, then allow it with --allow-code"
        )
    module, _, name = function.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it
    try:
        found: Callable[..., Any] | None = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a module may raise what it likes
        raise SpecError(
            f"{key}: module {module} cannot be imported: "
            + one_line(f"{type(error).__name__}: {error}")
        ) from error
    if found is None or not callable(found):
        raise SpecError(f"{key}: module {module} has no function '{name}'")
    return found


def score_rows(
    task: PythonTask, model: Any, tokenizer: Any, problems: Sequence[Problem], key: str
) -> list[float]:
    """What the user's function gives each row.

    Raises:
        SpecError: see `load_function`; or it returns something else than one number for each row.
        CandidateError: it raises.
    """
    function = load_function(task.function, f"{key}.function")
    rows = [json.loads(problem.text) for problem in problems]
    try:
        scores = function(model, tokenizer, rows)
        scores = list(scores) if isinstance(scores, Iterable) else scores
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise CandidateError(f"{key}: {task.function} raised {reason}") from error
    try:
        found = [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(
            f"{key}: {task.function} should return a list of numbers: {one_line(error)}"
        ) from error
    if len(found) != len(rows):
        raise SpecError(
            f"{key}: {task.function} returned {len(found)} scores for {len(rows)} rows; return one "
            "for each"
        )
    return found
