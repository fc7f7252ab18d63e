"""The paper's rule, and a model's scores from its outcomes."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from evomerge_optuna.errors import CandidateError, NotFiniteError
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.data import Problem
from evomerge_optuna.evaluation.evaluator import (
    Evaluator,
    Likelihood,
    answer_scores,
    judge,
    perplexity,
)
from evomerge_optuna.models.loading import load_model
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


def test_evaluation_keeps_every_outcome(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluation = Evaluator(make_spec()).evaluate(model, tokenizer, "dev")
    evaluation.require_finite()
    score = evaluation.scores["words.perplexity"]
    assert 1 < score.low < score.value < score.high
    assert score.n == len(evaluation.rows()) == 20


def test_blocks_joined_are_the_whole_split(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluator = Evaluator(make_spec())
    whole = evaluator.evaluate(model, tokenizer, "search")
    blocks = [evaluator.evaluate(model, tokenizer, "search", Block(n, 6, 0)) for n in range(6)]
    joined = evaluator.join(blocks)
    assert sorted(o.text for o in joined.outcomes) == sorted(o.text for o in whole.outcomes)
    one, other = joined.scores["words.perplexity"], whole.scores["words.perplexity"]
    assert (one.value, one.low, one.n) == pytest.approx((other.value, other.low, other.n))


def test_a_score_that_is_not_a_number(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    model.lm_head.weight.data.fill_(float("nan"))
    evaluation = Evaluator(make_spec()).evaluate(model, tokenizer, "search")
    assert math.isnan(evaluation.scores["words.perplexity"].value)
    with pytest.raises(NotFiniteError, match=r"words\.perplexity on search is nan"):
        evaluation.require_finite()


def likelihoods(*found: tuple[float, int]) -> Sequence[Likelihood]:
    return [Likelihood("t", "text", nll, tokens) for nll, tokens in found]


def test_perplexity_is_exp_of_the_mean_over_texts() -> None:
    score = perplexity(likelihoods((2.0, 2), (9.0, 3), (0.0, 0)), "tasks.t")
    assert score.value == pytest.approx(math.exp((2 / 2 + 9 / 3) / 2))
    assert score.n == 2
    assert perplexity(likelihoods((1e6, 1)), "tasks.t").value == math.inf


def test_texts_with_nothing_to_predict() -> None:
    with pytest.raises(CandidateError, match=r"^tasks\.t: no text has more than one token"):
        perplexity(likelihoods((0.0, 0)), "tasks.t")
