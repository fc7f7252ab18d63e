"""Choice tasks: options and answers from data, and what likelihoods choose."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.errors import NotFiniteError, SpecError
from evomerge_optuna.evaluation.data import check_data
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.evaluation.tasks.choice import choice_scores, choose
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.spec import ChoiceTask
from tests.conftest import WORDS, SpecMaker
from tests.engine import engine_of, log_likelihoods


def test_choose() -> None:
    problem = Problem("?", "長い答え", ("否", "長い答え"))  # of 3 and 12 bytes
    choice = choose("t", problem, (-3.0, -6.0))
    assert (choice.right, choice.right_normalized) == (False, True)
    scores = choice_scores([choice, choose("t", problem, (-3.0, -2.0))])
    assert {name: s.value for name, s in scores.items()} == {
        "accuracy": 0.5,
        "normalized_accuracy": 1.0,
    }
    assert choose("t", problem, (-math.inf, -2.0)).right
    with pytest.raises(NotFiniteError, match=r"^tasks\.t: the log-likelihood of an option"):
        choose("t", problem, (math.nan, -2.0))


def task(path: Path, **parts: Any) -> ChoiceTask:
    content = {"type": "choice", "data": {"search": {"path": str(path)}}, **parts}
    return ChoiceTask.model_validate(content)


ARC = {"options": "choices.text", "labels": "choices.label"}


@pytest.mark.parametrize(
    ("row", "parts", "options", "reference"),
    [
        ('{"question": "q", "choices": ["a", "b"], "answer": 1}', {}, ("a", "b"), "b"),
        ('{"question": "q", "choices": ["a", "b"], "answer": "a"}', {}, ("a", "b"), "a"),
        ('{"question": "q", "choices": [1, 0], "answer": "b"}', {}, None, "'b' is no option"),
        ('{"question": "q", "choices": [1, 0], "answer": 0}', {}, None, "and the index of another"),
        ('{"question": "q", "choices": [1, 0], "answer": 0}',
         {"answer_as": "index"}, ("1", "0"), "1"),
        ('{"question": "q", "choices": [1, 0], "answer": 0}',
         {"answer_as": "text"}, ("1", "0"), "0"),
        ('{"question": "q", "choices": ["a", "b"], "answer": 0}',
         {"answer_as": "text"}, None, "'0' is no option; it should be the text of one"),
        ('{"question": "q", "choices": [0, 1], "answer": 1}', {}, ("0", "1"), "1"),
        ('{"question": "q", "x": "a", "y": "b", "answer": 0}',
         {"options": ["{x}", "（{y}）"]}, ("a", "（b）"), "a"),
        ('{"question": "q", "answer": "はい"}',
         {"options": ["はい", "いいえ"]}, ("はい", "いいえ"), "はい"),
        ('{"question": "q", "choices": ["a", "a"], "answer": 1}', {}, None, "all different"),
        ('{"question": "q", "choices": ["a"], "answer": 0}', {}, None, "two or more"),
        ('{"question": "q", "choices": "ab", "answer": 0}', {}, None, "'choices' holds no list"),
        ('{"question": "q", "answer": 0}', {}, None, "has no column 'choices'; it has question"),
        ('{"question": "q", "choices": ["a", "b"]}', {}, None, "has no column 'answer'"),
        # paths and labels
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": "B"}',
         ARC, ("a", "b"), "b"),
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answer": "2"}',
         ARC, ("a", "b"), "b"),
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": [1, 2]}, "answer": 1}',
         ARC, ("a", "b"), "a"),
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": "b"}',
         ARC, ("a", "b"), "b"),
        ('{"question": "q", "choices": {"text": ["2", "1"], "label": ["1", "2"]}, "answer": "2"}',
         ARC, None, "the text of one option and the label of another; write answer_as"),
        ('{"question": "q", "choices": {"text": ["2", "1"], "label": ["1", "2"]}, "answer": "2"}',
         {**ARC, "answer_as": "label"}, ("2", "1"), "1"),
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": "C"}',
         ARC, None, "'C' is no option; it should be the text of one, or its label"),
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answer": "A"}',
         ARC, None, "2 options have 1 labels"),
        ('{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "A"]}, "answer": "A"}',
         ARC, None, "the labels ('A', 'A') should be all different"),
        ('{"question": "q", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}], '
         '"answer": "B"}', ARC, ("a", "b"), "b"),
        ('{"question": "q", "x": "a", "y": "b", "answer": "B"}',
         {"options": ["{x}", "{y}"], "labels": ["A", "B", "C", "D"]}, ("a", "b"), "b"),
        ('{"question": "q", "x": "a", "y": "b", "answer": "B"}',
         {"options": ["{x}", "{y}"]}, None, "if it is a letter, write labels: [A, B, C, D]"),
        # what is equal as it stands, and what looks equal
        ('{"question": "q", "choices": ["a b", "a  b"], "answer": "a  b"}',
         {}, ("a b", "a  b"), "a  b"),
        ('{"question": "q", "choices": ["A", "Ａ"], "answer": "Ａ"}', {}, ("A", "Ａ"), "Ａ"),
        ('{"question": "q", "choices": ["a", "b "], "answer": "b"}', {}, ("a", "b "), "b "),
        ('{"question": "q", "choices": ["Ｂ", "a"], "answer": "B"}', {}, ("Ｂ", "a"), "Ｂ"),
        ('{"question": "q", "choices": ["a b", "a  b"], "answer": "a   b"}',
         {}, None, "is equal to several of the options but for white space"),
        ('{"question": "q", "choices": ["null", "NaN"], "answer": "NaN"}',
         {}, ("null", "NaN"), "NaN"),
        ('{"question": "q", "choices": ["false", "true"], "answer": true}',
         {}, ("false", "true"), "true"),
        ('{"question": "q", "choices": ["a", null], "answer": 0}',
         {}, None, "row 1, column 'choices.1' is empty"),
        ('{"question": "q", "choices": ["a", ["b"]], "answer": 0}',
         {}, None, "row 1, column 'choices.1' holds a list"),
        ('{"question": "q", "choices": ["a", "b"], "answer": {"text": "a"}}',
         {}, None, "name one of them, as answer.text"),
    ],
)  # fmt: skip
def test_options_and_answers(
    tmp_path: Path, row: str, parts: Any, options: Any, reference: str
) -> None:
    (tmp_path / "d.jsonl").write_text(row + "\n")
    found = task(tmp_path / "d.jsonl", **parts)
    if options is not None:
        assert runners({"t": found})["t"].problems("search") == [Problem("q", reference, options)]
        return
    with pytest.raises(SpecError) as error:
        runners({"t": found})["t"].problems("search")
    assert str(error.value).startswith("tasks.t.data.search: ") and reference in str(error.value)


def test_any_of_several_right_options_is_right(tmp_path: Path) -> None:
    row = {"question": "Which are even?", "choices": ["2", "3", "4"], "answer": ["4", "2"]}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    found = task(tmp_path / "d.jsonl", answer_as="text")
    problem = runners({"t": found})["t"].problems("search")[0]
    assert problem.references == ("4", "2")
    assert [choose("t", problem, at).right for at in ((0, -1, -1), (-1, 0, -1), (-1, -1, 0))] == [
        True, False, True
    ]  # fmt: skip


def test_a_question_is_another_one_with_other_options(tmp_path: Path) -> None:
    for name, options in (("a", ["x", "y"]), ("b", ["x", "z"])):
        row = {"question": "Which is true?", "choices": options, "answer": 0}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    a, b = ({"path": str(tmp_path / f"{name}.jsonl")} for name in "ab")
    check_data(runners({"t": task(tmp_path / "a.jsonl", data={"search": a, "test": b})}))
    with pytest.raises(SpecError, match="occurs again in test"):
        check_data(runners({"t": task(tmp_path / "a.jsonl", data={"search": a, "test": a})}))


def test_a_choice_task_of_a_spec(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    rows = ["question,answer"] + [f"{word},{i % 2}" for i, word in enumerate(WORDS)]
    (tmp_path / "d.csv").write_text("\n".join(rows))
    options = WORDS[:2]
    content = {"type": "choice", "data": {"search": {"path": str(tmp_path / "d.csv")}}}
    spec = make_spec(
        tasks={"c": {**content, "options": options}},
        objectives=[{"maximize": "c.normalized_accuracy"}],
    )
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluation = Evaluator(spec).evaluate(engine_of(model, tokenizer), "search")
    right = []
    for i, word in enumerate(WORDS):
        pairs = [(word, f" {option}") for option in options]
        found = [log_likelihoods(model, tokenizer, [pair], 1)[0] for pair in pairs]
        right.append(found.index(max(found)) == i % 2)
    assert evaluation.marks() == {"c": "".join(str(int(r)) for r in right)}
    assert evaluation.scores["c.accuracy"].value == sum(right) / len(right)
    assert evaluation.rows()[0]["options"] == tuple(options)
