"""Tasks of lm-evaluation-harness with models that think, and with prompts that are too long.

Covers evaluation.cut_off, too.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.reading import reader_of
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.spec import StudySpec
from tests.conftest import SpecMaker
from tests.engine import engine_of
from tests.scripted import save_scripted_model

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}"
    "{% if begin is defined %}{{ '<think>\n' }}{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)


@pytest.fixture(scope="module", autouse=True)
def no_report_on_the_machine() -> Any:
    """Which the harness adds to its results, and which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
        yield


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 24 positions that thinks of 3, and answers 5."""
    return save_scripted_model(
        tmp_path_factory.mktemp("thinking") / "m",
        "assistant <think> maybe 3 STOP </think> 5 </s>",
        words=["user", "Q", "R"],
        added={"<think>": False, "</think>": False},
        template=TEMPLATE,
        max_position_embeddings=24,
    )


Make = Callable[..., StudySpec]


@pytest.fixture
def make(make_spec: SpecMaker, tmp_path: Path) -> Make:
    def made(kind: str = "generate_until", tokens: int = 8, **parts: Any) -> StudySpec:
        rows = [{"question": q, "answer": "5", "choices": ["3", "5"]} for q in ("Q", "R R", "Q R")]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        metric = "exact_match" if kind == "generate_until" else "acc"
        task: dict[str, Any] = {
            "task": "own",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
            "test_split": "test",
            "output_type": kind,
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}" if kind == "generate_until" else "{{choices.index('5')}}",
            "metric_list": [{"metric": metric}],
        }
        if kind == "generate_until":
            task["generation_kwargs"] = {"until": ["STOP", "\n\n"], "max_gen_toks": tokens}
        else:
            task["doc_to_choice"] = "choices"
        (tmp_path / "own.yaml").write_text(json.dumps(task))
        allow([str(tmp_path)])
        content = {
            "type": "lm_eval",
            "task": "own",
            "include_path": str(tmp_path),
            "metric": metric,
            "data": {"search": "[1:]"},
            "chat": True,
            **parts,
        }
        return make_spec(tasks={"t": content}, objectives=[{"maximize": f"t.{metric}"}])

    return made


def scored(spec: StudySpec, folder: Path) -> Evaluation:
    return Evaluator(spec).evaluate(engine_of(*load_model(folder, "cpu")), "search")


@pytest.mark.parametrize("args", [{}, {"begin": True}])
def test_a_model_is_heard_out(make: Make, thinker: Path, args: dict[str, Any]) -> None:
    found = scored(make(chat_args=args), thinker)
    assert found.scores["t.exact_match"].value == 1
    assert [row["responses"] for row in found.rows()] == [["5"], ["5"]]
    assert found.scores["t.cut_off_share"].value == 0 and not found.remarks
    cut = scored(make(tokens=3, chat_args=args), thinker)
    assert cut.scores["t.exact_match"].value == 0 and cut.scores["t.cut_off_share"].value == 1
    assert [row["responses"] for row in cut.rows()] == [[""], [""]]
    assert "100% of 2 answers are none, since thinking was cut off" in cut.remarks["t"]


def test_without_thinking_few_tokens_are_enough(make: Make, thinker: Path) -> None:
    found = scored(make(tokens=2, chat_args={"enable_thinking": False}), thinker)
    assert found.scores["t.exact_match"].value == 1


def test_options_are_asked_for_when_thinking_is_over(make: Make, thinker: Path) -> None:
    found = scored(make("multiple_choice", chat_args={"begin": True}), thinker)
    assert found.scores["t.acc"].value == 1


def test_too_long_a_prompt_is_refused_or_cut(make: Make, thinker: Path) -> None:
    reader = reader_of(OpenedModel(str(thinker), "MODEL"))
    Evaluator(make(tokens=20)).check(reader, "search")
    with pytest.raises(SpecError) as error:
        Evaluator(make(tokens=21)).check(reader, "search")
    assert str(error.value).startswith("tasks.t.data.search: row 1 (")
    assert "has 4 tokens and 21 of an answer, but MODEL" in str(error.value)
    cut = make(tokens=22, too_long="cut")
    Evaluator(cut).check(reader, "search")
    assert scored(cut, thinker).scores["t.exact_match"].value == 1
