"""mergekit's private parts do what they did in the version in which they were read."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.merge import run_merge
from safetensors.torch import load_file

from evomerge_optuna.merging.mergekit_internals import run_tasks, scheduled
from evomerge_optuna.merging.plan import merge_options, plan_merge
from evomerge_optuna.recipes.merge import MergeRecipe

READ_IN = ("0.1.5",)


def test_the_version_in_which_they_were_read() -> None:
    """If this fails: read `merging/mergekit_internals.py` beside the new version, then add it."""
    assert version("mergekit") in READ_IN


@pytest.mark.parametrize("source", [None, "union"])
@pytest.mark.parametrize("method", ["dare_ties", "della", "passthrough"])
def test_tasks_run_without_a_folder_give_what_run_merge_writes(
    tiny: Path, tmp_path: Path, home: Path, method: str, source: str | None
) -> None:
    """In the same order, on which random masks depend."""
    parameters = {"weight": 0.7, "density": 0.5, "epsilon": 0.2, "scale": 0.5}
    names = ["a"] if method == "passthrough" else ["a", "b"]
    models: list[dict[str, Any]] = [{"model": str(tiny / name)} for name in names]
    content: dict[str, Any] = {"merge_method": method, "models": models, "parameters": parameters}
    if method != "passthrough":
        content["base_model"] = str(tiny / "base")
    recipe = MergeRecipe(configuration=content | {"tokenizer_source": source}, seed=4)
    plan = plan_merge(recipe)
    torch.manual_seed(4)
    ours = dict(run_tasks(plan.tasks, "cpu"))

    run_merge(plan.configuration, str(tmp_path / "theirs"), merge_options(recipe))
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert set(plan.tasks) <= set(scheduled(plan.tasks))
