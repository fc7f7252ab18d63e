"""The controls of a search over adapters: random adapters, and one that is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from evomerge_optuna.merging.adapters.merger import AdapterMerger
from evomerge_optuna.models.adapters import ADAPTER_WEIGHTS
from evomerge_optuna.models.sources.adapted import adapter_folder
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.results.final_scores import stored_final_scores
from evomerge_optuna.results.trained import trained_recipe
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import recipe_of
from tests.adapters import save_lora


def test_both_are_scored_beside_the_trial(
    spec_content: Callable[..., dict[str, Any]], tiny: Path, home: Path, tmp_path: Path
) -> None:
    for seed, name in enumerate("xy"):
        save_lora(tmp_path / name, tiny / "base", seed, ["q_proj", "v_proj"])
    content = spec_content(
        models={name: str(tmp_path / name) for name in "xy"},
        merge={"space": "adapter", "method": "linear"},
        baselines=["random_adapters", "trained"],
    )
    study = create_study(open_store(), parse_spec(content))
    run_trials(study, 2)
    trial = study.ranked()[0]
    said: list[str] = []
    rows = FinalScorer(study, said.append).final_scores(trial)
    who = f"trial {trial.number}"
    names = ["x", "y", "uniform merge", f"random adapters, merged as {who}", "trained adapter", who]
    assert [row.name for row in rows] == names
    assert "training an adapter on the search split" in said
    assert [row.name for row in stored_final_scores(study, trial)] == names
    said.clear()
    FinalScorer(study, said.append).final_scores(trial)
    assert said == []  # all is stored

    def perplexity(row: int, split: str) -> float:
        return rows[row].scores[split]["words.perplexity"].value

    recipe = trained_recipe(study)
    weights = load_file(adapter_folder(recipe.adapters[0]) / ADAPTER_WEIGHTS)
    assert any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name)
    found = recipe_of(trial)
    assert isinstance(found, AdapterRecipe)
    blank = found.model_copy(
        update={"adapters": recipe.adapters, "method": "cat", "groups": recipe.groups}
    )
    assert dict(AdapterMerger().stream(blank)).keys() == weights.keys()
    assert perplexity(4, "search") != perplexity(2, "search")


def test_random_adapters_have_the_norms_of_the_real_ones(tiny: Path, tmp_path: Path) -> None:
    save_lora(tmp_path / "x", tiny / "base", 0, ["q_proj"], lora_alpha=4)
    name = f"{tiny / 'base'}+{tmp_path / 'x'}"
    recipe = AdapterRecipe.model_validate(
        {
            "base_model": str(tiny / "base"),
            "adapters": [name],
            "method": "cat",
            "groups": [{"values": {name: {"weight": 1.0}}}],
            "layers": 4,
            "reads_as": name,
            "seed": 0,
        }
    )
    own = dict(AdapterMerger().stream(recipe))
    drawn = dict(AdapterMerger().stream(recipe.model_copy(update={"random": 1})))
    again = dict(AdapterMerger().stream(recipe.model_copy(update={"random": 1})))
    for module, tensor in own.items():
        assert torch.equal(drawn[module], again[module])
        assert not torch.allclose(drawn[module], tensor)
        torch.testing.assert_close(drawn[module].norm(), tensor.norm())
