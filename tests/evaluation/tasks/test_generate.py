"""The paper's rule, and the scores of generated answers."""

import pytest

from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks.generate import answer_scores, judge
from evomerge_optuna.spec import GenerateTask


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
    assert (answer.match == 1, answer.language_right) == (number_right, language_right)
    assert answer.right is (number_right and language_right)


def test_scores_of_a_task_without_language() -> None:
    task = GenerateTask.model_validate({"type": "generate", "data": "d"})
    answers = [judge("t", task, Problem("?", "8"), text) for text in ("8", "It is 8.", "9", "")]
    scores = answer_scores(task, answers)
    assert {name: score.value for name, score in scores.items()} == {
        "accuracy": 0.5,
        "number_accuracy": 0.5,
    }
