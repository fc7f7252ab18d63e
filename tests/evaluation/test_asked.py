"""Covers spec.engines, too."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.asked import check_asked
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.families import CAUSAL_LM
from evomerge_optuna.families.base import Asked, Family
from evomerge_optuna.families.causal_lm import CausalLM
from evomerge_optuna.families.vision_language.family import VisionLanguage
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.spec.data import TaskData
from evomerge_optuna.spec.engines import ENGINE_ROWS, Need
from evomerge_optuna.spec.tasks import PerplexityTask
from evomerge_optuna.study.checks import runnable_tasks


class Painter(CausalLM):
    name = "painter"
    answers: ClassVar[Asked] = "images"
    needs: ClassVar[Need | None] = "drawing"


def test_a_task_is_refused_by_name_where_the_models_give_something_else() -> None:
    data = TaskData.model_validate({"search": {"path": "texts.jsonl"}})
    tasks = runners({"fluency": PerplexityTask(type="perplexity", data=data)})
    check_asked(tasks, CAUSAL_LM, ENGINE_ROWS["transformers"])
    with pytest.raises(SpecError, match=r"tasks\.fluency: .* asks for texts"):
        check_asked(tasks, Painter(), ENGINE_ROWS["transformers"])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"type": "python", "function": "own:score"}, "type python runs code that is given a mode"),
        ({"type": "vqa"}, "type vqa takes images, which vllm is not given"),
    ],
)
def test_a_task_is_refused_by_name_where_the_engine_lacks_what_it_needs(
    spec_content: Callable[..., dict[str, Any]], task: dict[str, Any], message: str
) -> None:
    metric = {"python": "score", "vqa": "accuracy"}[task["type"]]
    spec = parse_spec(
        spec_content(
            tasks={"mine": {**task, "data": {"search": {"path": "rows.jsonl"}}}},
            objectives=[{"maximize": f"mine.{metric}"}],
            evaluation={"engine": "vllm"},
        )
    )
    with pytest.raises(SpecError, match=rf"^tasks\.mine: .*{message}.*engine: transformers"):
        runnable_tasks(spec)


@pytest.mark.parametrize(
    ("family", "message"),
    [(Painter(), "a painter draws images"), (VisionLanguage(), "language model takes images")],
)
def test_models_that_an_engine_does_not_run_are_refused(family: Family, message: str) -> None:
    with pytest.raises(SpecError, match=rf"^evaluation\.engine: .*{message}.*write engine: tran"):
        check_asked({}, family, ENGINE_ROWS["vllm"])
