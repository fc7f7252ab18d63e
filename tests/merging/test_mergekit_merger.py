"""What is written is, bit for bit, what mergekit writes from the recipe's YAML.

Covers merging.plan, too.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors import SafetensorError
from safetensors.torch import load_file

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.methods import METHODS
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spec import parse_spec
from tests.conftest import LAYERS

GROUPS: list[dict[str, Any]] = [{"layer_group_size": 2}, {"layer_groups": ["self_attn", "mlp"]}]


def a_recipe(content: dict[str, Any], seed: int) -> MergeRecipe:
    space = ParameterSpace.of(parse_spec(content), LAYERS)
    generator = torch.Generator().manual_seed(seed)
    return space.recipe(
        {
            name: found.low + torch.rand(1, generator=generator).item() * (found.high - found.low)
            for name, found in space.ranges().items()
        }
    )


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_equal_to_mergekit_and_the_same_twice(
    spec_content: Callable[..., dict[str, Any]],
    tiny: Path,
    tmp_path: Path,
    method: str,
    groups: dict[str, Any],
) -> None:
    models = {alias: str(tiny / alias) for alias in "ab"[: METHODS[method].sources[1]]}
    content = spec_content(models=models, merge={"method": method, **groups})
    recipe = a_recipe(content, seed=3)
    digest = write_recipe(recipe, tmp_path / "ours", "cpu")
    torch.rand(5)  # the seed, not the state of the generator, decides
    assert write_recipe(recipe, tmp_path / "again", "cpu") == digest

    configuration = MergeConfiguration.model_validate(recipe.configuration)
    options = MergeOptions(random_seed=recipe.seed, write_model_card=False, quiet=True)
    run_merge(configuration, str(tmp_path / "theirs"), options)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    base = load_file(tiny / "base" / "model.safetensors")
    assert any(not torch.equal(ours[name], base[name]) for name in ours)
    assert (tmp_path / "ours" / "tokenizer.json").is_file()


def test_the_seed_decides_the_masks(
    spec_content: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = a_recipe(spec_content(merge={"method": "dare_ties"}), seed=3)
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    assert write_recipe(recipe, tmp_path / "a", "cpu") != write_recipe(other, tmp_path / "b", "cpu")


def test_a_merge_that_overflows_is_the_candidates_fault(
    spec_content: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    merge = {"method": "task_arithmetic", "weight": 1e39}
    with pytest.raises(CandidateError, match="NaN or infinite"):
        write_recipe(a_recipe(spec_content(merge=merge), seed=0), tmp_path / "out", "cpu")


def test_what_mergekit_refuses_is_the_candidates_fault(tiny: Path, tmp_path: Path) -> None:
    recipe = MergeRecipe(
        configuration={"merge_method": "no_such", "models": [{"model": str(tiny / "a")}]}, seed=0
    )
    with pytest.raises(CandidateError, match="mergekit cannot build it"):
        write_recipe(recipe, tmp_path / "out", "cpu")


def test_a_full_disk_is_not_the_candidates_fault(
    spec_content: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_recipe(a_recipe(spec_content(), seed=0), tmp_path / "out", "cpu")
    assert raised.value.errno == errno.ENOSPC
