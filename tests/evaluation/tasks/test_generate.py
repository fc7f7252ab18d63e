"""The paper's rule, and the scores of generated answers."""

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks.generate import answer_scores, check_reference, judge
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


@pytest.mark.parametrize(
    ("scorer", "answers", "message"),
    [
        (
            "last_number",
            ("1:30",),
            "the answer '1:30' is not one number; write scorer: exact, or ma",
        ),
        ("released_number", ("x = 3, y = 5",), "is not one number"),
        ("last_number", ("2024-05-03",), "is not one number"),
        ("last_number", (r"2\sqrt{3}",), "is not one number"),
        ("last_number", ("four",), "the answer 'four' has no number"),
        ("last_number", ("four", "4 or 5"), "the answer '4 or 5' is not one number"),
        ("last_number", ("four", "quatre"), "has no number"),
        ("last_number", ("four", "4"), None),
        ("last_number", (r"\frac{1}{2}",), None),
        ("last_number", ("3*6=<<3*6=18>>18\n#### 18",), None),
        ("math", ("x = 3, y = 5",), None),
        ("math", (r"\sqrt{2}",), None),
        ("math", ("1:30",), None),
        ("math", ("東京",), "the answer '東京' is no expression that math-verify reads"),
        ("exact", ("1:30",), None),
        ("exact", ("a", " "), "an answer is empty"),
    ],
)
def test_a_reference_that_the_scorer_cannot_compare_is_refused_with_its_row(
    scorer: str, answers: tuple[str, ...], message: str | None
) -> None:
    content = {"type": "generate", "data": "d", "scorer": scorer}
    task = GenerateTask.model_validate(content)
    problem = Problem("?", answers[0], others=answers[1:], place="d.csv, row 7")
    if message is None:
        check_reference(task, problem, "d")
        return
    with pytest.raises(SpecError) as error:
        check_reference(task, problem, "d")
    assert str(error.value).startswith("d.csv, row 7: ") and message in str(error.value)


def test_any_of_several_answers_is_right_and_all_are_shown() -> None:
    task = GenerateTask.model_validate({"type": "generate", "data": "d", "scorer": "exact"})
    problem = Problem("?", "4", others=("four",))
    assert judge("t", task, problem, "four").right and not judge("t", task, problem, "five").right
    assert judge("t", task, problem, "five").reference == "4 | four"


def test_scores_of_a_task_without_language() -> None:
    task = GenerateTask.model_validate({"type": "generate", "data": "d"})
    answers = [judge("t", task, Problem("?", "8"), text) for text in ("8", "It is 8.", "9", "")]
    scores = answer_scores(task, answers)
    assert {name: score.value for name, score in scores.items()} == {
        "accuracy": 0.5,
        "number_accuracy": 0.5,
    }
