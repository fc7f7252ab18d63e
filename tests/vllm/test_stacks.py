"""Stacks in vLLM: what is scored is the exported model itself.

Covers merging.filling, too.
"""

from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from tests.vllm.test_vllm import TRANSFORMERS, VLLM, replies

pytestmark = pytest.mark.vllm

PATHS = [
    [("a", 0, 1.0), ("a", 1, 0.8), ("b", 3, 1.2), ("b", 2, -0.9), ("a", 2, 1.1), ("b", 3, 1.0)],
    [("b", 0, 0.7), ("a", 3, 1.0)],
    [("a", 0, 1.0), ("b", 1, -1.0), ("a", 0, 1.3), ("b", 3, 0.9)],
]


def stack(folder: Path, path: list[tuple[str, int, float]]) -> StackRecipe:
    steps = [Step(model=str(folder / m), layer=n, scale=scale) for m, n, scale in path]
    return StackRecipe(
        embeddings=str(folder / "a"), steps=tuple(steps), head=str(folder / path[-1][0])
    )


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_stack_answers_as_its_export(families: Path, kind: str, tmp_path: Path) -> None:
    ours, theirs = candidate_builder(VLLM), candidate_builder(TRANSFORMERS)
    found = []
    for number, path in enumerate(PATHS):
        recipe = stack(families / kind, path)
        candidate, other = ours.build(recipe), theirs.build(recipe)
        assert candidate.engine.costs() == other.engine.costs()
        found.append(replies(candidate.engine))
        numbers = found[-1][1]
        assert numbers == pytest.approx(replies(other.engine)[1], rel=1e-3)  # norms' epsilon
        assert write_recipe(recipe, tmp_path / str(number), "cpu") == candidate.digest
        assert candidate.digest == other.digest
    for number, (texts, numbers) in enumerate(found):
        again, likelihoods = replies(load_engine(tmp_path / str(number), VLLM))
        assert texts == again
        assert numbers == pytest.approx(likelihoods, abs=1e-5)


def test_a_search_of_stacks(content: dict[str, Any], home: Path) -> None:
    del content["base_model"], content["merge"]
    measures = []
    for engine in ("vllm", "transformers"):
        evaluation = content["evaluation"] if engine == "vllm" else {"device": "cpu"}
        spec = {**content, "study": engine, "stage": "dfs", "evaluation": evaluation, "trials": 6}
        study = create_study(open_store(), parse_spec(spec))
        run_trials(study, 6)
        measures.append([result_of(trial).measures["read.perplexity"] for trial in study.trials()])
    assert measures[0] == pytest.approx(measures[1], rel=1e-3)
