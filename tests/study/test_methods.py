"""Every merge method of the table is searched, and a drawn candidate is what mergekit makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from optuna.trial import FrozenTrial

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.methods import METHODS
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.results.final_scores import models_to_score
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spec import ParameterStudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import UNSEARCHED
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
    assert_as_mergekit_makes_it(drawn, tmp_path / "theirs")
    assert merge_of(drawn).configuration["merge_method"] == method


MERGES: dict[str, dict[str, Any]] = {
    "any_method": {"method": ["ties", "dare_ties", "della"], "include": "search"},
    "options": {"method": "dare_linear", "rescale": [True, False], "lambda": {"log": [0.5, 2]}},
    "depth": {"method": "breadcrumbs", "interpolate": 3, "layer_groups": ["mlp"]},
    "groups": {"method": "della", "layer_group_size": 2, "layer_groups": ["self_attn", "mlp"]},
}


@pytest.mark.parametrize("name", MERGES)
def test_whatever_is_searched_a_candidate_is_what_mergekit_makes(
    spec_content: Callable[..., dict[str, Any]], home: Path, tiny: Path, tmp_path: Path, name: str
) -> None:
    """Candidates of other methods and source models follow each other in one engine."""
    content = spec_content(merge=MERGES[name], sampler={"name": "nsga2", "population": 4})
    study = create_study(open_store(), parse_spec(content))
    number = 7 if name == "any_method" else 3
    run_trials(study, number)
    scored = [trial for trial in study.trials() if trial.state.is_finished()]
    assert len(scored) == number
    if name == "any_method":
        assert len({merge_of(trial).configuration["merge_method"] for trial in scored}) > 1
        assert len({len(merge_of(trial).models()) for trial in scored}) > 1
    for trial in scored[-2:]:
        assert_as_mergekit_makes_it(trial, tmp_path / f"theirs{trial.number}")


def test_merges_with_nothing_to_search_are_scored_beside_the_uniform_merge(
    spec_content: Callable[..., dict[str, Any]], home: Path, tiny: Path, tmp_path: Path
) -> None:
    study = create_study(open_store(), parse_spec(spec_content()))
    run_trials(study, 1)
    rows = {m.name: m.recipe for m in models_to_score(study, study.trials()[0])}
    merges = {name: recipe for name, recipe in rows.items() if name in study.space.unsearched()}
    assert [*merges] == ["model_stock merge", "karcher merge"]
    scored = {row.name: row.scores for row in FinalScorer(study).final_scores(study.trials()[0])}
    assert all("words.perplexity" in scored[name]["test"] for name in merges)
    builder = candidate_builder(study.spec.evaluation)
    for name, recipe in merges.items():
        assert isinstance(recipe, MergeRecipe)
        assert builder.build(recipe).digest == made_by_mergekit(recipe, tmp_path / name)


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({}, ["model_stock", "karcher"]),
        ({"models": {"a": "x"}}, ["arcee_fusion"]),
        ({"base_model": None, "merge": {"method": "linear"}}, ["karcher"]),
        ({"base_model": "x", "merge": {"method": "linear"}}, ["karcher"]),
        ({"merge": {"method": "ties", "tokenizer_source": "base"}}, ["model_stock"]),
        ({"merge": {"method": "ties", "tokenizer_source": "union"}}, ["model_stock", "karcher"]),
    ],
    ids=str,
)
def test_they_are_left_out_where_they_do_not_fit(
    spec_content: Callable[..., dict[str, Any]], parts: dict[str, Any], names: list[str]
) -> None:
    spec = parse_spec(spec_content(**{"base_model": "m", "models": {"a": "x", "b": "y"}, **parts}))
    assert isinstance(spec, ParameterStudySpec)
    found = ParameterSpace.of(spec, 4).unsearched()
    assert [*found] == [f"{name} merge" for name in names]


def test_one_that_cannot_be_built_is_left_out(
    spec_content: Callable[..., dict[str, Any]], home: Path, tiny: Path
) -> None:
    study = create_study(open_store(), parse_spec(spec_content()))
    run_trials(study, 1)
    broken = {"merge_method": "unknown", "models": [{"model": str(tiny / "a")}]}
    recipe = MergeRecipe(configuration=broken, seed=0).model_dump(mode="json")
    study.study.set_user_attr(UNSEARCHED, {"karcher merge": recipe})
    said: list[str] = []
    rows = FinalScorer(study, said.append).final_scores(study.trials()[0])
    assert "karcher merge" not in [row.name for row in rows]
    assert any(line.startswith("karcher merge is left out: ") for line in said)


def merge_of(trial: FrozenTrial) -> MergeRecipe:
    recipe = recipe_of(trial)
    assert isinstance(recipe, MergeRecipe)
    return recipe


def assert_as_mergekit_makes_it(trial: FrozenTrial, folder: Path) -> None:
    assert result_of(trial).sha256 == made_by_mergekit(merge_of(trial), folder)


def made_by_mergekit(recipe: MergeRecipe, folder: Path) -> str:
    configuration = MergeConfiguration.model_validate(recipe.configuration)
    options = MergeOptions(random_seed=recipe.seed, write_model_card=False, quiet=True)
    run_merge(configuration, str(folder), options)
    return digest_files(folder)
