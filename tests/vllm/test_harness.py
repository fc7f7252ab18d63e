"""lm-evaluation-harness asks vLLM, and finds what it finds of the checkpoint by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.merging.recipe_merger import write_recipe
from tests.evaluation.test_harness import alone
from tests.evaluation.test_harness_engine import KINDS, spec_of, task_in
from tests.vllm.test_vllm import VLLM, recipes

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_scores_as_its_export_by_the_harness_alone(
    families: Path, kind: str, tmp_path: Path, spec_content: Callable[..., dict[str, Any]]
) -> None:
    (recipe,) = recipes(families / "tied", 1)
    write_recipe(recipe, tmp_path / "export", "cpu")
    task_in(tmp_path, tmp_path / "export", kind)
    engine = candidate_builder(VLLM).build(recipe).engine
    wanted = alone("own", tmp_path, tmp_path / "export", range(24))
    metrics = [name for name in wanted if name.endswith(",none") and "stderr" not in name]
    for name in metrics:
        metric = name.removesuffix(",none")
        evaluator = Evaluator(spec_of(tmp_path, spec_content, metric))
        score = evaluator.evaluate(engine, "search").scores[f"t.{metric}"]
        assert score.value == pytest.approx(wanted[name], rel=1e-5)
