"""A python task's function: allowed or refused, imported, called, and told what is wrong.

Covers evaluation.tasks.python, too.
"""

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.user_code import allow, allowed, load_function, score_rows
from evomerge_optuna.models.loading import load_model
from tests.conftest import SpecMaker
from tests.engine import engine_of

ROWS = [{"text": text} for text in ("a", "bb")]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module of a name of its own into the current folder; gives its function."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(body: str, function: str = "score", permit: bool = True) -> str:
        name = f"m{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(body)
        if permit:
            allow([f"{name}:{function}"])
        return f"{name}:{function}"

    return make


def scores(function: str) -> list[float]:
    return score_rows(function, "t", ROWS, "the model", "its tokenizer")


def test_the_function_gets_the_rows(write: Write) -> None:
    body = "def score(model, tokenizer, rows): return (len(r['text']) for r in rows)"
    assert scores(write(body)) == [1.0, 2.0]


def test_code_is_not_run_unless_allowed(write: Write, tmp_path: Path) -> None:
    function = write("open('ran', 'w')\ndef score(*_): return []", permit=False)
    assert function not in allowed()
    with pytest.raises(
        SpecError, match=r"^t\.function: the spec comes from the database .*--allow"
    ):
        scores(function)
    with pytest.raises(SpecError):
        load_function(function, "t.function")
    assert not (tmp_path / "ran").exists()
    allow([function])
    load_function(function, "t.function")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("body", "function", "error", "message"),
    [
        ("1 / 0", "score", SpecError, "cannot be imported: ZeroDivisionError: division by zero"),
        ("score = (", "score", SpecError, "cannot be imported: SyntaxError"),
        ("", "score", SpecError, "has no function 'score'"),
        ("score = 1", "score", SpecError, "has no function 'score'"),
        ("def score(*_): return [1]", "score", SpecError, "returned 1 scores for 2 rows; return o"),
        ("def score(*_): return 1", "score", SpecError, "should return a list of numbers: 'int'"),
        ("def score(*_): return ['a', 1]", "score", SpecError, "should return a list of numbers"),
        ("def score(*_): return [10**400] * 2", "score", SpecError, "a list of numbers"),
        ("def score(): return []", "score", CandidateError, "raised TypeError: score() takes 0"),
        ("def score(*_): raise Exception('a\\nb')", "score", CandidateError, "Exception: a b"),
    ],
)
def test_bad_code(
    write: Write, body: str, function: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        scores(write(body, function))
    assert message in str(raised.value) and str(raised.value).startswith("t")
    assert "\n" not in str(raised.value)


def test_a_module_that_is_not_there() -> None:
    allow(["no_such_module_at_all:score"])
    with pytest.raises(SpecError, match="cannot be imported: ModuleNotFoundError: No module named"):
        scores("no_such_module_at_all:score")


def test_a_python_task_of_a_spec(
    write: Write, make_spec: SpecMaker, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = write(
        "def score(model, tokenizer, rows):\n"
        "    return [len(tokenizer(row['text'])['input_ids']) + model.training for row in rows]\n"
    )
    data = {"search": {"path": str(tiny / "search.jsonl")}}
    spec = make_spec(
        tasks={"own": {"type": "python", "data": data, "function": function}},
        objectives=[{"maximize": "own.score"}],
    )
    evaluation = Evaluator(spec).evaluate(engine_of(*load_model(tiny / "a", "cpu")), "search")
    found = evaluation.scores["own.score"]
    assert (found.value, found.n) == (5.0 + 1.0, 20)  # five words and a number, not in training
    assert evaluation.marks() == {}
    assert json.loads(evaluation.rows()[0]["row"]) == {"text": "word0 plus word0 is word0 0"}
