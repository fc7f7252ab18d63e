"""Problems: rows of a `datasets` data set, from the hub, a local file or the zoo."""

import csv
import glob
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.spec import DataSource, GenerateTask, Task

ZOO_PROBLEMS = "zoo:problems"
_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Problem:
    """What the model is given (a prompt, or a text to judge), and the answer if there is one."""

    text: str
    reference: str | None = None


def load_problems(task: Task, split: str, key: str) -> list[Problem]:
    """The problems of one split of a task, in the order of the data.

    Args:
        key: the task's place in the spec, named in errors.

    Raises:
        SpecError: the data cannot be had, or a column that the task uses is missing.
    """
    source = task.data.sources().get(split)
    if source is None:
        raise SpecError(f"{key}.data: the spec gives no {split} split; add {split}: {{path: ...}}")
    where = f"{key}.data.{split}"
    rows = list(_load(source, where))
    if not rows:
        raise SpecError(f"{where}: {source.path} [{source.split}] has no rows")
    template = task.prompt if isinstance(task, GenerateTask) else task.text
    answer = (source.answer or task.answer) if isinstance(task, GenerateTask) else None
    for column in sorted({*_columns(template), *([answer] if answer else [])}):
        if column not in rows[0]:
            raise SpecError(
                f"{where}: {source.path} has no column '{column}'; "
                f"it has {', '.join(map(str, rows[0]))}"
            )
    return [
        Problem(template.format_map(row), None if answer is None else str(row[answer]))
        for row in rows
    ]


def check_data(tasks: dict[str, Task]) -> None:
    """Loads every split and refuses a problem that occurs in two of them.

    Raises:
        SpecError: also where a split cannot be loaded, or an answer has no number.
    """
    for name, task in tasks.items():
        seen: dict[str, str] = {}
        for split in task.data.sources():
            for problem in load_problems(task, split, f"tasks.{name}"):
                if seen.setdefault(problem.text, split) != split:
                    raise SpecError(
                        f"tasks.{name}.data: a problem of {seen[problem.text]} occurs again in "
                        f"{split}: {problem.text[:60]!r}; splits must not overlap"
                    )
                if problem.reference is not None and last_number(problem.reference) is None:
                    raise SpecError(
                        f"tasks.{name}.data.{split}: the answer {problem.reference[:40]!r} has no "
                        "number; name the right column as answer"
                    )


def fingerprint_data(tasks: dict[str, Task]) -> dict[str, str]:
    """SHA-256 of the problems of every split, by its place in the spec.

    Raises:
        SpecError: a split cannot be loaded.
    """
    return {
        f"tasks.{name}.data.{split}": _sha256(load_problems(task, split, f"tasks.{name}"))
        for name, task in tasks.items()
        for split in task.data.sources()
    }


def _sha256(problems: list[Problem]) -> str:
    rows = [[problem.text, problem.reference] for problem in problems]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _columns(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def _load(source: DataSource, where: str) -> Any:
    if source.path == ZOO_PROBLEMS:
        from evomerge_optuna.models.problems import load_problems as load_zoo_problems

        problems = load_zoo_problems()
        if source.split not in problems:
            raise SpecError(f"{where}: zoo:problems has the splits {', '.join(problems)}")
        return problems[source.split]
    import datasets

    datasets.disable_progress_bars()
    path = Path(source.path)
    found = os.path.exists(path)  # pathlib raises for a name that is too long
    try:
        if path.suffix in _BUILDERS and (path.is_absolute() or found):
            if not found:
                raise SpecError(f"{where}: there is no file {path}; correct the path")
            options: dict[str, Any] = {}
            if path.suffix == ".tsv":
                options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
            if source.columns is not None:
                options["column_names"] = list(source.columns)
            return datasets.load_dataset(
                _BUILDERS[path.suffix],
                data_files=glob.escape(str(path)),
                split=source.split,
                **options,
            )
        return datasets.load_dataset(source.path, source.name, split=source.split)
    except SpecError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpecError(
            f"{where}: '{source.path}' is not a local file and the hub does not give it: {first}"
            if not found
            else f"{where}: {source.path} [{source.split}] cannot be read: {first}"
        ) from error
