"""Every type of task that a spec may have is run by the module of its name.

Covers `evaluation.tasks.base`, too.
"""

from typing import get_args

import pytest

from evomerge_optuna.evaluation.tasks import TaskRunner, runner_of
from evomerge_optuna.evaluation.tasks.base import Outcome
from evomerge_optuna.spec import Task

TYPES = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(Task)[0])]


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_a_runner(name: str) -> None:
    runner = runner_of(name)
    assert issubclass(runner, TaskRunner)
    assert runner.__module__ == f"evomerge_optuna.evaluation.tasks.{name}"


def test_an_outcome_is_neither_right_nor_wrong_unless_its_task_says_so() -> None:
    assert Outcome("t").mark() is None
