from typing import ClassVar

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.asked import check_asked
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.families import CAUSAL_LM
from evomerge_optuna.families.base import Asked
from evomerge_optuna.families.causal_lm import CausalLM
from evomerge_optuna.spec.data import TaskData
from evomerge_optuna.spec.tasks import PerplexityTask


class Painter(CausalLM):
    name = "painter"
    answers: ClassVar[Asked] = "images"


def test_a_task_is_refused_by_name_where_the_models_give_something_else() -> None:
    data = TaskData.model_validate({"search": {"path": "texts.jsonl"}})
    tasks = runners({"fluency": PerplexityTask(type="perplexity", data=data)})
    check_asked(tasks, CAUSAL_LM)
    with pytest.raises(SpecError, match=r"tasks\.fluency: .* asks for texts"):
        check_asked(tasks, Painter())
