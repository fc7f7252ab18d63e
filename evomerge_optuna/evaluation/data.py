"""Problems: rows of a `datasets` data set, from the hub, a local file or the zoo."""

import csv
import glob
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.evaluation.scorers import normal
from evomerge_optuna.spec import (
    ChoiceTask,
    DataSource,
    GenerateTask,
    Prompted,
    PythonTask,
    ShotSource,
    Task,
)
from evomerge_optuna.spec.data import columns

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
    """What the model is given (a prompt, or a text to judge), and the answer if there is one.

    Where it is a choice, the options, of which the answer is one. Of a python task the text is the
    row as JSON.
    """

    text: str
    reference: str | None = None
    options: tuple[str, ...] = ()


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
    return _problems(task, source, f"{key}.data.{split}")


def load_shots(task: Task, key: str) -> list[Problem]:
    """The solved problems that a task puts before every other.

    Raises:
        SpecError: they cannot be had, a column is missing, or there are fewer than wanted.
    """
    if not isinstance(task, Prompted) or not task.shots:
        return []
    where = f"{key}.shots"
    if not isinstance(task.shots, ShotSource):
        return [
            _problem(task, row, task.answer, f"{where}[{n}]") for n, row in enumerate(task.shots)
        ]
    found = _problems(task, task.shots, where)[: task.shots.n]
    if len(found) < task.shots.n:
        raise SpecError(f"{where}: {task.shots.path} has {len(found)} rows; write n: {len(found)}")
    return found


def check_data(tasks: dict[str, Task]) -> None:
    """Loads every split and refuses a problem that occurs in two of them, or among the shots.

    Raises:
        SpecError: also where a split cannot be loaded, or an answer has no number to compare.
    """
    for name, task in tasks.items():
        shots = load_shots(task, f"tasks.{name}")
        seen = {shot.text: "the shots" for shot in shots}
        for split in task.data.sources():
            for problem in load_problems(task, split, f"tasks.{name}"):
                if seen.setdefault(problem.text, split) != split:
                    raise SpecError(
                        f"tasks.{name}.data: a problem of {seen[problem.text]} occurs again in "
                        f"{split}: {problem.text[:60]!r}; splits must not overlap"
                    )
                _check_answer(task, problem, f"tasks.{name}.data.{split}")


def fingerprint_data(tasks: dict[str, Task]) -> dict[str, str]:
    """SHA-256 of the problems of every split, and of the shots, by their place in the spec.

    Raises:
        SpecError: a split cannot be loaded.
    """
    found = {
        f"tasks.{name}.data.{split}": _sha256(load_problems(task, split, f"tasks.{name}"))
        for name, task in tasks.items()
        for split in task.data.sources()
    }
    shots = {
        f"tasks.{name}.shots": load_shots(task, f"tasks.{name}") for name, task in tasks.items()
    }
    return found | {key: _sha256(solved) for key, solved in shots.items() if solved}


def _sha256(problems: list[Problem]) -> str:
    rows = [
        [problem.text, problem.reference, *([problem.options] if problem.options else [])]
        for problem in problems
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _problems(task: Task, source: DataSource, where: str) -> list[Problem]:
    rows = list(_load(source, where))
    if not rows:
        raise SpecError(f"{where}: {source.path} [{source.split}] has no rows")
    answer = source.answer or getattr(task, "answer", None)
    return [_problem(task, row, answer, f"{where}: {source.path}") for row in rows]


def _problem(task: Task, row: dict[str, Any], answer: str | None, where: str) -> Problem:
    if isinstance(task, PythonTask):
        return Problem(_as_json(row, where))
    text = _filled(task.prompt if isinstance(task, Prompted) else task.text, row, where)
    if not isinstance(task, Prompted):
        return Problem(text)
    given = _column(answer, row, where)
    if isinstance(task, ChoiceTask):
        options = _options(task, row, where)
        return Problem(text, options[_right(task, given, options, where)], options)
    if task.scorer != "last_number" and not isinstance(given, str | int | float):
        raise SpecError(
            f"{where}: the answer {str(given)[:40]!r} is no text; name the right column"
        )
    return Problem(text, str(given))


def _options(task: ChoiceTask, row: dict[str, Any], where: str) -> tuple[str, ...]:
    if isinstance(task.options, str):
        listed = _column(task.options, row, where)
        if not isinstance(listed, list):
            raise SpecError(
                f"{where}: column '{task.options}' holds no list; write the columns of the "
                "options as options: ['{a}', '{b}']"
            )
        options = tuple(map(str, listed))
    else:
        options = tuple(_filled(template, row, where) for template in task.options)
    if len(options) < 2 or len(set(options)) < len(options) or "" in options:
        raise SpecError(
            f"{where}: the options {options} should be two or more, all different, none empty"
        )
    return options


def _right(task: ChoiceTask, answer: Any, options: tuple[str, ...], where: str) -> int:
    """The index of the right option, which the data gives as such or as its text."""
    texts = [normal(option) for option in options]
    text = normal(str(answer))
    named = {texts.index(text)} if text in texts and task.answer_as != "index" else set()
    if task.answer_as != "text":
        named |= {index for index in range(len(options)) if text == str(index)}
    if len(named) == 1:
        return named.pop()
    raise SpecError(
        f"{where}: the answer {text[:40]!r} "
        + (
            "is the text of one option and the index of another; write answer_as: text or index"
            if named
            else "is no option; it should be the text of one, or its index from 0"
        )
    )


def _check_answer(task: Task, problem: Problem, where: str) -> None:
    if not isinstance(task, GenerateTask) or problem.reference is None:
        return
    if task.scorer == "last_number" and last_number(problem.reference) is None:
        raise SpecError(
            f"{where}: the answer {problem.reference[:40]!r} has no number; name the right column "
            "as answer, or another scorer"
        )
    if not normal(problem.reference):
        raise SpecError(f"{where}: an answer is empty; name the right column as answer")


def _filled(template: str, row: dict[str, Any], where: str) -> str:
    return template.format_map({name: _column(name, row, where) for name in columns(template)})


def _column(name: str | None, row: dict[str, Any], where: str) -> Any:
    if name not in row:
        raise SpecError(f"{where} has no column '{name}'; it has {', '.join(map(str, row))}")
    return row[name]


def _as_json(row: dict[str, Any], where: str) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, sort_keys=True)
    except TypeError as error:
        raise SpecError(
            f"{where}: a row has something else than text and numbers: {error}"
        ) from error


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
