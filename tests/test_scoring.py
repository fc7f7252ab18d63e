"""Any checkpoint on the tasks of a spec: the evaluator's own scores, or one clear line."""

import shutil
from pathlib import Path

import pytest

from evomerge_optuna.errors import EvomergeError, SpecError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.report.tables import evaluation_table
from evomerge_optuna.scoring import score_checkpoint
from tests.conftest import SpecMaker
from tests.engine import engine_of


def test_the_evaluators_own_scores(make_spec: SpecMaker, tiny: Path) -> None:
    found = score_checkpoint(str(tiny / "c"), make_spec(), "dev")  # no model of the spec
    wanted = Evaluator(make_spec()).evaluate(engine_of(*load_model(tiny / "c", "cpu")), "dev")
    assert found.scores == wanted.scores
    (score,) = found.scores.values()
    table = evaluation_table("c", make_spec(), found)
    assert [list(column.cells) for column in table.columns] == [
        ["words.perplexity"],
        ["20"],
        [f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"],
    ]


def test_what_cannot_be_scored(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no folder /nowhere/model; correct the path"):
        score_checkpoint("/nowhere/model", make_spec(), "test")
    shutil.copytree(tiny / "a", tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EvomergeError, match="bad cannot be loaded: "):
        score_checkpoint(str(tmp_path / "bad"), make_spec(), "test")
    data = {"search": {"path": str(tiny / "search.jsonl")}}
    spec = make_spec(tasks={"words": {"type": "perplexity", "data": data}})
    with pytest.raises(UsageError, match="no task has a test split; write --split search"):
        score_checkpoint(str(tiny / "a"), spec, "test")
