"""Every merge method of the table is searched, and a drawn candidate is what mergekit makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from evomerge_optuna.methods import METHODS
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import recipe_of


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_searched(
    spec_content: Callable[..., dict[str, Any]], home: Path, tiny: Path, tmp_path: Path, method: str
) -> None:
    models = {alias: str(tiny / alias) for alias in "ab"[: METHODS[method].sources[1]]}
    merge = {"method": method, "layer_groups": ["mlp"]}
    content = spec_content(models=models, merge=merge)
    study = create_study(open_store(), parse_spec(content))
    run_trials(study, 2)
    drawn = study.trials()[-1]  # the first is the uniform merge
    result, recipe = result_of(drawn), recipe_of(drawn)
    assert isinstance(recipe, MergeRecipe) and recipe.configuration["merge_method"] == method
    configuration = MergeConfiguration.model_validate(recipe.configuration)
    options = MergeOptions(random_seed=recipe.seed, write_model_card=False, quiet=True)
    run_merge(configuration, str(tmp_path / "theirs"), options)
    assert result.sha256 == digest_files(tmp_path / "theirs")
