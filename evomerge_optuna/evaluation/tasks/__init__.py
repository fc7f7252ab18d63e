"""The kinds of tasks, a module each.

A new kind is a class of `spec.tasks` (its keys and metrics), and a module here that is named as its
`type` and gives its `RUNNER`; the rest of the program knows tasks by what `TaskRunner` has.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from evomerge_optuna.evaluation.tasks.base import Outcome, TaskRunner
from evomerge_optuna.spec import Task

__all__ = ["Outcome", "TaskRunner", "Tasks", "runner_of", "runners"]

AnyRunner = TaskRunner[Any]
Tasks = Mapping[str, AnyRunner]  # by their names in the spec


def runners(tasks: Mapping[str, Task]) -> Tasks:
    """What runs each task of a spec, by its name."""
    return {name: runner_of(task.type)(name, task) for name, task in tasks.items()}


def runner_of(kind: str) -> type[AnyRunner]:
    """What runs the tasks of a type."""
    found: type[AnyRunner] = import_module(f"{__name__}.{kind}").RUNNER
    return found
