"""Columns are found by what people call them, else by what they hold.

Covers proposal.leaves, too.
"""

from typing import Any

import pytest

from evomerge_optuna.errors import UsageError
from evomerge_optuna.proposal.columns import Columns, columns_of
from evomerge_optuna.proposal.leaves import leaves

LONG = "What is the number of apples ?"


def rows(**cells: Any) -> list[dict[str, Any]]:
    """Three rows, of cells that a call with the row's number gives, or that are the same."""
    return [
        {name: cell(n) if callable(cell) else cell for name, cell in cells.items()}
        for n in range(3)
    ]


@pytest.mark.parametrize(
    ("columns", "prompt", "answer"),
    [
        (("question", "answer"), "{question}", "answer"),
        (("Question", "Correct Answer"), "{Question}", "Correct Answer"),
        (("problem", "solution"), "{problem}", "solution"),
        (("id", "instruction", "output"), "{instruction}", "output"),
        (("質問", "回答"), "{質問}", "回答"),
        (("pregunta", "respuesta"), "{pregunta}", "respuesta"),
        (("context", "question", "answer"), "{context}\n{question}", "answer"),
        (("instruction", "input", "output"), "{instruction}\n{input}", "output"),
    ],
)
def test_common_names(columns: tuple[str, ...], prompt: str, answer: str) -> None:
    found = columns_of(rows(**dict.fromkeys(columns, "some text")))
    assert (found.prompt, found.answer) == (prompt, answer)


def test_an_input_that_is_empty_in_some_rows_is_left_out() -> None:
    data = rows(instruction=LONG, input=lambda n: "" if n else "x", output="y")
    assert columns_of(data).prompt == "{instruction}"


def test_without_names_the_longer_text_is_the_question() -> None:
    found = columns_of(rows(x="8", y=LONG))
    assert (found.prompt, found.answer) == ("{y}", "x")


def test_answers_within_a_column() -> None:
    found = columns_of(rows(question=LONG, answers={"text": ["a"], "start": [1]}))
    assert (found.prompt, found.answer) == ("{question}", "answers.text")


@pytest.mark.parametrize(("role", "content"), [("role", "content"), ("from", "value")])
def test_conversations(role: str, content: str) -> None:
    chat = [{role: "user", content: LONG}, {role: "assistant", content: "8"}]
    name = "messages" if role == "role" else "conversations"
    found = columns_of(rows(**{name: chat}))
    assert (found.prompt, found.answer) == (f"{{{name}.0.{content}}}", f"{name}.1.{content}")


def options(**cells: Any) -> Columns:
    return columns_of(rows(question=LONG, **cells))


def test_options_in_a_list() -> None:
    found = options(choices=["x", "y"], answer=lambda n: "xy"[n % 2])
    assert (found.options, found.labels, found.answer_as) == ("choices", None, None)
    assert options(choices=["x", "y"], answer=lambda n: n % 2).answer_as == "index"
    assert options(options=["7", "8"], answer="8").answer_as == "text"


def test_options_with_labels_as_arc_has_them() -> None:
    choices = {"text": ["x", "y"], "label": ["A", "B"]}
    found = options(choices=choices, answerKey="B")
    assert (found.options, found.labels) == ("choices.text", "choices.label")
    assert found.answer == "answerKey"


@pytest.mark.parametrize(
    ("names", "answer", "labels", "answer_as"),
    [
        (("A", "B", "C", "D"), "C", ("A", "B", "C", "D"), None),
        (("option_a", "option_b"), "a", ("a", "b"), None),
        (("opa", "opb", "opc"), "2", ("1", "2", "3"), "label"),
        (("choice0", "choice1"), lambda n: str(n % 2), None, "index"),
    ],
)
def test_options_in_columns(names: Any, answer: Any, labels: Any, answer_as: Any) -> None:
    found = options(**{name: f"text of {name}" for name in names}, answer=answer)
    assert found.options == tuple(f"{{{name}}}" for name in names)
    assert (found.labels, found.answer_as) == (labels, answer_as)


def test_pictures_and_plain_texts() -> None:
    found = columns_of(rows(image={"bytes": b"", "path": None}, question=LONG, answer="red"))
    assert found.picture == "image" and found.answer == "answer"
    assert columns_of(rows(photo="a.jpg", q="x")).picture == "photo"
    only = columns_of(rows(text=LONG))
    assert (only.prompt, only.answer, only.text) == (None, None, "{text}")


def test_a_column_with_empty_cells_is_no_answer() -> None:
    data = rows(question=LONG, answer=lambda n: None if n else "x", result="y")
    assert columns_of(data).answer == "result"
    filled = {leaf.path: leaf.is_filled for leaf in leaves(data)}
    assert filled == {"question": True, "answer": False, "result": True}


UNKNOWN = {"番号": "7", "日本語の文": LONG, "English sentence": LONG + LONG, "こた": "8"}


def test_what_no_name_tells_is_a_guess_that_somebody_corrects() -> None:
    found = columns_of(rows(**UNKNOWN))
    assert found.guesses == {"question", "answer", "text"} and found.texts == (*UNKNOWN,)
    assert found.guessed("text") == "English sentence" and found.guessed("answer") is None
    said = {"question": "日本語の文", "answer": "こた"}
    found = columns_of(rows(**UNKNOWN), said)
    assert (found.prompt, found.answer) == ("{日本語の文}", "こた") and found.guesses == {"text"}
    assert not columns_of(rows(x="8", y=LONG, question=LONG, answer="8")).guesses & {*said}
    with pytest.raises(
        UsageError, match=r"--answer: there is no column 'x' .* has 番号, 日本語の文"
    ):
        columns_of(rows(**UNKNOWN), {"answer": "x"})


def test_a_column_that_no_template_can_name_is_no_question() -> None:
    found = columns_of(rows(**{"a:b": LONG, "Question (ja)": "x", "Answer: n": "8", "z": "y"}))
    assert found.text == "{Question (ja)}"
    assert columns_of(rows(**{"質問": LONG, "id": "1", "こたえ": "8"})).answer == "こたえ"
