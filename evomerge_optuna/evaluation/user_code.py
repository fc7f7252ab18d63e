"""The user's own code: run only where the user has allowed it.

Python tasks name a function, samplers a class, lm_eval tasks may name a folder (whose templates can
run code, too) or a backend.

The function of a task is called once for each model and split:

    def score(model, tokenizer, rows: list[dict]) -> Sequence[float]

and that of an image task's scorer with the pictures, `def score(images: list[PIL.Image.Image],
rows: list[dict])`. The first gets the model
with the model in evaluation mode on its device, its tokenizer, and the rows of the split as they
are in the data; it returns one finite number for each row, of which the mean is the task's
`score`. It may not keep or change the model, whose tensors are those of the next candidate.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.evaluation.problem import Row
from evomerge_optuna.explain import kind_and_message, one_line
from evomerge_optuna.spec import (
    FunctionScorer,
    ImageTask,
    LMEvalTask,
    PythonTask,
    StudySpec,
    Task,
)

_allowed: set[str] = set()


def code_of(spec: StudySpec) -> tuple[str, ...]:
    """What a spec has run: functions as `module:function`, folders, backends."""
    found: list[str | None] = [spec.sampler.class_]
    for task in spec.tasks.values():
        found += [function for _, function in _functions(task)]
        if isinstance(task, LMEvalTask):
            found += [task.include_path, task.backend]
    return tuple(name for name in found if name is not None)


def allow(names: Iterable[str]) -> None:
    """Lets this process run this code; by default it runs none.

    A stored spec may have been written by anyone who writes to the database. Call it with what the
    user of this process has named, or has looked at.
    """
    _allowed.update(names)


def allowed() -> tuple[str, ...]:
    """What this process may run, for the processes that it starts."""
    return tuple(sorted(_allowed))


def fingerprint_code(spec: StudySpec) -> dict[str, str]:
    """SHA-256 of the file of every function that the spec names, and of every folder of tasks.

    By their place in the spec.

    Raises:
        SpecError: see `load_function`; or there is no such folder.
    """
    found = {}
    for name, task in spec.tasks.items():
        for place, function in _functions(task):
            key = f"tasks.{name}.{place}"
            load_function(function, key)
            file = sys.modules[function.partition(":")[0]].__file__
            found[key] = hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()
        if isinstance(task, LMEvalTask) and task.include_path is not None:
            key = f"tasks.{name}.include_path"
            require_allowed(task.include_path, key)
            found[key] = _digest_folder(Path(task.include_path), key)
    return found


def _functions(task: Task) -> Iterator[tuple[str, str]]:
    """The functions that a task names, each after its key in the task."""
    if isinstance(task, PythonTask):
        yield "function", task.function
    if isinstance(task, ImageTask):
        for name, scorer in task.scorers.items():
            if isinstance(scorer, FunctionScorer):
                yield f"scorers.{name}.function", scorer.function


def _digest_module(function: str, key: str) -> str:
    load_function(function, key)
    file = sys.modules[function.partition(":")[0]].__file__
    return hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()


def require_allowed(name: str, key: str) -> None:
    """Refuses code that nobody has allowed.

    Args:
        key: its place in the spec.
    """
    if name not in _allowed:
        raise SpecError(
            f"{key}: the spec comes from the database and would run the code of {name}; look "
            "at it, then allow it with --allow-code"
        )


def _digest_folder(folder: Path, key: str) -> str:
    if not folder.is_dir():
        raise SpecError(f"{key}: there is no folder {folder}; correct the path")
    whole = hashlib.sha256()
    # All of them: what YAML includes may have any name, and what shots are read from any format.
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        whole.update(f"{file.relative_to(folder)}\0".encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def load_function(function: str, key: str) -> Callable[..., object]:
    """The function, imported from the current folder or from what is installed.

    Raises:
        SpecError: nobody has allowed it, it cannot be imported, or it is no function.
    """
    require_allowed(function, key)
    module, _, name = function.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it
    try:
        found: Callable[..., object] | None = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a module may raise what it likes
        raise SpecError(
            f"{key}: module {module} cannot be imported: " + kind_and_message(error)
        ) from error
    if found is None or not callable(found):
        raise SpecError(f"{key}: module {module} has no function '{name}'")
    return found


def score_rows(function: str, key: str, rows: Sequence[Row], *of: object) -> list[float]:
    """What the user's function gives each row.

    Args:
        function: as `module:function`.
        key: of the task or scorer in the spec.
        of: what the function gets before the rows.

    Raises:
        SpecError: see `load_function`; or it returns something else than one number for each row.
        CandidateError: it raises.
    """
    call = load_function(function, f"{key}.function")
    try:
        scores = call(*of, rows)
        given = list(scores) if isinstance(scores, Iterable) else None
    except Exception as error:
        reason = kind_and_message(error)
        raise CandidateError(f"{key}: {function} raised {reason}") from error
    try:
        if given is None:
            raise TypeError(f"'{type(scores).__name__}' object is not iterable")
        found = [float(score) for score in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(
            f"{key}: {function} should return a list of numbers: {one_line(error)}"
        ) from error
    if len(found) != len(rows):
        raise SpecError(
            f"{key}: {function} returned {len(found)} scores for {len(rows)} rows; return one "
            "for each"
        )
    return found
