"""The kinds of tasks, a module each.

A new kind is a class of `spec.tasks` (its keys and metrics), a `TaskRunner` in a module here, and
one line in `_RUNNERS`; the rest of the program knows tasks by what `TaskRunner` has.
"""

from collections.abc import Mapping
from typing import Any

from evomerge_optuna.evaluation.tasks.base import Outcome, TaskRunner
from evomerge_optuna.evaluation.tasks.choice import ChoiceRunner
from evomerge_optuna.evaluation.tasks.generate import GenerateRunner
from evomerge_optuna.evaluation.tasks.lm_eval import LMEvalRunner
from evomerge_optuna.evaluation.tasks.perplexity import PerplexityRunner
from evomerge_optuna.evaluation.tasks.python import PythonRunner
from evomerge_optuna.evaluation.tasks.vqa import VqaRunner
from evomerge_optuna.spec import (
    ChoiceTask,
    GenerateTask,
    LMEvalTask,
    PerplexityTask,
    PythonTask,
    Task,
    VqaTask,
)

__all__ = ["Outcome", "TaskRunner", "Tasks", "runners"]

AnyRunner = TaskRunner[Any]
Tasks = Mapping[str, AnyRunner]  # by their names in the spec

_RUNNERS: dict[type[Task], type[AnyRunner]] = {
    GenerateTask: GenerateRunner,
    ChoiceTask: ChoiceRunner,
    PerplexityTask: PerplexityRunner,
    PythonTask: PythonRunner,
    LMEvalTask: LMEvalRunner,
    VqaTask: VqaRunner,
}


def runners(tasks: Mapping[str, Task]) -> Tasks:
    """What runs each task of a spec, by its name."""
    return {name: _RUNNERS[type(task)](name, task) for name, task in tasks.items()}
