"""The paper's rule, and a model's scores from its outcomes."""

from pathlib import Path

import pytest

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.evaluation.data import Problem
from evomerge_optuna.evaluation.evaluator import Evaluator, answer_scores, judge, load_model
from evomerge_optuna.spec import GenerateTask
from tests.conftest import SpecMaker


@pytest.mark.parametrize(
    ("text", "number_right", "language_right"),
    [
        ("答えは18個です。", True, True),
        ("答えは１８個です。", True, True),
        ("The answer is 18.", True, False),
        ("答えは17個です。", False, True),
        ("", False, False),
    ],
)
def test_judge(text: str, number_right: bool, language_right: bool) -> None:
    task = GenerateTask.model_validate({"type": "generate", "data": "d", "language": "ja"})
    answer = judge("t", task, Problem("何個ですか？", "... #### 18"), text)
    assert (answer.number_right, answer.language_right) == (number_right, language_right)
    assert answer.right is (number_right and language_right)


def test_scores_of_a_task_without_language() -> None:
    task = GenerateTask.model_validate({"type": "generate", "data": "d"})
    answers = [judge("t", task, Problem("?", "8"), text) for text in ("8", "It is 8.", "9", "")]
    scores = answer_scores(task, answers)
    assert {name: score.value for name, score in scores.items()} == {
        "accuracy": 0.5,
        "number_accuracy": 0.5,
    }


def test_evaluation_keeps_every_outcome(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluation = Evaluator(make_spec()).evaluate(model, tokenizer, "dev")
    score = evaluation.scores["words.perplexity"]
    assert 1 < score.low < score.value < score.high
    assert score.n == len(evaluation.rows()) == 20


def test_a_score_that_is_not_a_number(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(CandidateError, match=r"words\.perplexity on search is nan"):
        Evaluator(make_spec()).evaluate(model, tokenizer, "search")
