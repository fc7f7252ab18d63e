"""A task asks for texts or for images; a family of models gives one of them, an engine runs it."""

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.tasks import Tasks
from evomerge_optuna.families.base import Family
from evomerge_optuna.spec.engines import EngineRow


def check_asked(tasks: Tasks, family: Family, engine: EngineRow) -> None:
    """Refuses a task that asks for what such models or this engine do not give.

    Raises:
        SpecError: naming the task, or the engine where it does not run such models at all.
    """
    for runner in tasks.values():
        if runner.asks != family.answers:
            raise SpecError(
                f"{runner.key}: a task of type {runner.task.type} asks for {runner.asks}, and a "
                f"{family.name} gives {family.answers}; remove the task, or name other models"
            )
    if family.needs in engine.lacks:
        raise SpecError(
            f"evaluation.engine: a {family.name} {engine.lacks[family.needs]}; write "
            f"engine: {family.engine}, or name other models"
        )
    for runner in tasks.values() if engine.lacks else ():  # some are loaded to say what they need
        if runner.needs in engine.lacks:
            raise SpecError(
                f"{runner.key}: a task of type {runner.task.type} {engine.lacks[runner.needs]}; "
                "write evaluation: {engine: transformers}, or remove the task"
            )
