"""A task asks for texts or for images, and a family of models gives one of them."""

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.tasks import Tasks
from evomerge_optuna.families.base import Family


def check_asked(tasks: Tasks, family: Family) -> None:
    """Refuses a task that asks for what such models do not give.

    Raises:
        SpecError: naming the task.
    """
    for runner in tasks.values():
        if runner.asks != family.answers:
            raise SpecError(
                f"{runner.key}: a task of type {runner.task.type} asks for {runner.asks}, and a "
                f"{family.name} gives {family.answers}; remove the task, or name other models"
            )
