"""Studies whose sources are adapters, from creation to the exported checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.report.export import export
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from tests.conftest import save_adapter
from tests.engine import engine_of

PS = {"stage": "ps", "merge": {"method": "dare_ties", "weight": [0, 2]}}
DFS = {"stage": "dfs", "stack": {"repeats": 2, "scale": "network"}}


@pytest.mark.parametrize("stage", [PS, DFS], ids=["ps", "dfs"])
def test_a_study_of_adapters(
    stage: dict[str, Any],
    spec_content: Callable[..., dict[str, Any]],
    tiny: Path,
    home: Path,
    tmp_path: Path,
) -> None:
    for seed, name in enumerate("xy"):
        save_adapter(tmp_path / name, tiny / "base", seed)
    models = {name: f"{tiny}/base+{tmp_path}/{name}" for name in "xy"}
    content = spec_content(models=models)
    if stage is DFS:
        del content["base_model"], content["merge"]
    study = create_study(open_store(), parse_spec(content | stage))
    run_trials(study, 4)
    chosen = study.trials()[-1]
    digests = {result_of(trial).sha256 for trial in study.trials()}
    assert len(digests) == 4

    rows = FinalScorer(study).final_scores(chosen)
    assert [row.name for row in rows][:2] == ["x", "y"]
    out = tmp_path / "out"
    assert export(study, chosen, out) == result_of(chosen).sha256
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    found = Evaluator(study.spec).evaluate(engine_of(model, tokenizer), "test")
    test = found.scores["words.perplexity"]
    assert test.value == pytest.approx(rows[-1].scores["test"]["words.perplexity"].value, rel=1e-5)
