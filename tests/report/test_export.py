"""An export is the scored model, whole or not there, and anyone can make it again.

Covers report.card, too.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from evomerge_optuna.errors import ExportError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.merging.plan import merge_options
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.new_folder import new_folder
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.report.card import of_recipe
from evomerge_optuna.report.card_metadata import card_metadata
from evomerge_optuna.report.export import export, mergekit_yaml
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import LAYERS, WORDS, SpecMaker, save_tiny_model
from tests.engine import engine_of


@pytest.fixture
def finished(make_spec: SpecMaker, tmp_path: Path, home: Path) -> Iterator[MergeStudy]:
    """A short DARE study over models of its own."""
    base = save_tiny_model(tmp_path / "base", 0)
    models = {
        name: str(save_tiny_model(tmp_path / name, i, base)) for i, name in enumerate("ab", 1)
    }
    spec = make_spec(
        base_model=str(base), models=models, merge={"method": "dare_ties", "layer_group_size": 2}
    )
    merge_study = create_study(open_store(), spec)
    run_trials(merge_study, 4)
    yield merge_study


def test_export(finished: MergeStudy, tmp_path: Path) -> None:
    best = find_trial(finished, "best")
    scores = FinalScorer(finished).final_scores(best)[-1].scores
    out = tmp_path / "new" / "model"
    digest = export(finished, best, out)
    assert digest == result_of(best).sha256 == digest_files(out)

    # Plain transformers gives the scores that were printed.
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    for split in ("search", "dev", "test"):
        found = Evaluator(finished.spec).evaluate(engine_of(model, tokenizer), split)
        assert found.scores == scores[split]

    # Plain mergekit gives the same tensors.
    seed = finished.spec.sampler.seed
    subprocess.run(
        [Path(sys.executable).with_name("mergekit-yaml"), "--random-seed", str(seed),
         "--no-write-model-card", "--quiet", out / "mergekit_config.yml", tmp_path / "again"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert digest_files(tmp_path / "again") == digest

    front, _, body = (out / "README.md").read_text().removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(front)["tags"] == ["mergekit", "merge", "evomerge-optuna", "dare_ties"]
    assert "base_model" not in yaml.safe_load(front)  # the hub would link strangers' models
    assert digest in body
    assert f"{scores['test']['words.perplexity'].value:.3f}" in body
    assert "- model: a\n" in body
    assert [p.name for p in out.parent.iterdir()] == ["model"]

    # Only plain mergekit needs to know where the models lie on this machine.
    private = str(tmp_path).encode()
    assert [p.name for p in out.iterdir() if private in p.read_bytes()] == ["mergekit_config.yml"]


def test_hub_ids_stay_as_they_are(tmp_path: Path) -> None:
    local = str(save_tiny_model(tmp_path / "local", 0))
    sources = [{"model": "organisation/model@v1"}, {"model": local}]
    recipe = MergeRecipe(configuration={"base_model": "o/base", "models": sources}, seed=3)
    assert yaml.safe_load(mergekit_yaml(recipe)) == recipe.configuration
    assert "--random-seed 3" in mergekit_yaml(recipe)


def test_the_hub_links_models_without_their_revisions(make_spec: SpecMaker) -> None:
    spec = make_spec(base_model="o/base@v1", models={"a": "o/base@v1+o/x@v2", "b": "o/b"})
    assert card_metadata(spec, spec.model_ids().values())["base_model"] == ["o/base", "o/x", "o/b"]


def test_a_card_names_the_method_and_the_models_that_were_chosen(make_spec: SpecMaker) -> None:
    merge = {"method": ["ties", "della"], "include": "search"}
    spec = make_spec(base_model="o/base", models={"a": "o/a", "b": "o/b"}, merge=merge)
    space = ParameterSpace.of(spec, LAYERS)
    drawn = {"merge.method": "della", "a.include": False}
    chosen = of_recipe(spec, space.recipe(space.baseline() | drawn))
    assert card_metadata(chosen, chosen.model_ids().values())["base_model"] == ["o/base", "o/b"]
    assert (
        chosen.method == "della"
        and "della" in card_metadata(chosen, chosen.model_ids().values())["tags"]
    )


def test_a_union_is_repeated_from_the_exported_tokenizer(tmp_path: Path, home: Path) -> None:
    base = save_tiny_model(tmp_path / "base", 0)
    other = save_tiny_model(tmp_path / "other", 1, words=[*WORDS[:10], *map(str, range(20))])
    configuration = {
        "merge_method": "linear",
        "models": [{"model": str(m), "parameters": {"weight": 0.5}} for m in (base, other)],
        "tokenizer_source": "union",
    }
    recipe = MergeRecipe(configuration=configuration, seed=3)
    out = tmp_path / "out"
    digest = write_recipe(recipe, out, "cpu")
    written = mergekit_yaml(recipe)
    assert "in the place of `union`" in written
    again = {**yaml.safe_load(written), "tokenizer_source": str(out)}
    run_merge(
        MergeConfiguration.model_validate(again), str(tmp_path / "again"), merge_options(recipe)
    )
    assert digest_files(tmp_path / "again") == digest


def test_nothing_is_overwritten(finished: MergeStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UsageError, match="never overwrites"):
        export(finished, find_trial(finished, "best"), out)
    assert not list(out.iterdir())


def test_what_a_killed_export_left_is_in_nobodys_way(tmp_path: Path) -> None:
    left = tmp_path / f".out.{os.getpid()}.partial"  # in a container, numbers come again
    left.mkdir()
    (left / "half").touch()
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]


def test_a_changed_model_is_not_exported(finished: MergeStudy, tmp_path: Path) -> None:
    file = tmp_path / "a" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ExportError, match="are not those that were scored"):
        export(finished, find_trial(finished, "best"), tmp_path / "out")
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


@pytest.mark.parametrize(
    ("which", "message"),
    [("99", "has no trial 99"), ("-1", "not '-1'"), ("worst", "not 'worst'"), ("²", "not '²'")],
)
def test_choosing_a_trial_that_is_not_there(finished: MergeStudy, which: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_trial(finished, which)
    assert find_trial(finished, "2").number == 2


def test_an_export_says_where_plain_mergekit_makes_another_model(
    make_spec: SpecMaker, tmp_path: Path, home: Path
) -> None:
    """Biases that its definition lacks, one head of its own, and an adapter of tied embeddings."""
    tied = {"tie_word_embeddings": True, "mlp_bias": True}
    base = save_tiny_model(tmp_path / "base", 0, **tied)
    other = save_tiny_model(tmp_path / "other", 1, base, **tied)
    adapter = tmp_path / "adapter"
    settings = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    get_peft_model(LlamaForCausalLM.from_pretrained(base), settings).save_pretrained(adapter)
    spec = make_spec(base_model=str(base), models={"a": f"{base}+{adapter}", "b": str(other)})
    study = create_study(open_store(), spec)
    run_trials(study, 1)
    export(study, find_trial(study, "best"), tmp_path / "out")
    for file in ("mergekit_config.yml", "README.md"):
        text = (tmp_path / "out" / file).read_text()
        assert "ame tensors" not in text
        assert "mergekit leaves out 12 tensors" in text
        assert "lets one of tied embeddings change both ends" in text
        assert "write tie_word_embeddings: false into it" in text
