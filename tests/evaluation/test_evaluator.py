"""A model's scores from its outcomes, of all problems or block by block."""

import math
from pathlib import Path

import pytest

from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.models.loading import load_model
from tests.conftest import SpecMaker
from tests.engine import engine_of


def test_evaluation_keeps_every_outcome(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluation = Evaluator(make_spec()).evaluate(engine_of(model, tokenizer), "dev")
    evaluation.require_finite()
    score = evaluation.scores["words.perplexity"]
    assert 1 < score.low < score.value < score.high
    assert score.n == len(evaluation.rows()) == 20


def test_blocks_joined_are_the_whole_split(make_spec: SpecMaker, tiny: Path) -> None:
    engine = engine_of(*load_model(tiny / "a", "cpu"))
    evaluator = Evaluator(make_spec())
    whole = evaluator.evaluate(engine, "search")
    blocks = evaluator.evaluate_blocks(engine, "search", [Block(n, 6, 0) for n in range(6)])
    joined = evaluator.join(blocks)
    assert sorted(o.text for o in joined.outcomes) == sorted(o.text for o in whole.outcomes)
    one, other = joined.scores["words.perplexity"], whole.scores["words.perplexity"]
    assert (one.value, one.low, one.n) == pytest.approx((other.value, other.low, other.n))


def test_a_score_that_is_not_a_number(make_spec: SpecMaker, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    model.lm_head.weight.data.fill_(float("nan"))
    evaluation = Evaluator(make_spec()).evaluate(engine_of(model, tokenizer), "search")
    assert math.isnan(evaluation.scores["words.perplexity"].value)
    with pytest.raises(NotFiniteError, match=r"words\.perplexity on search is nan"):
        evaluation.require_finite()
