"""`model+adapter`: real LoRA adapters of peft on tiny models, against mergekit's own way.

Covers models.sources.adapted, too.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import SpecError
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.plan import merge_options
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.adapters import ADAPTER_WEIGHTS, config_with_adapter
from evomerge_optuna.models.catalog import (
    check_exists,
    local_folder,
    mergekit_name,
)
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.sources import source_of
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.scoring import score_checkpoint
from tests.adapters import save_base, save_lora
from tests.checked import checked
from tests.conftest import SpecMaker, save_adapter, save_tiny_model


@pytest.fixture(scope="module")
def bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in bfloat16, where rounding shows, and the adapters x and y."""
    root = tmp_path_factory.mktemp("adapters")
    base = save_tiny_model(root / "base", seed=0, dtype="bfloat16")
    for seed, name in enumerate("xy"):
        save_adapter(root / name, base, seed)
    return root


def a_recipe(root: Path) -> MergeRecipe:
    sources = [
        {"model": f"{root}/base+{root}/{name}", "parameters": {"weight": 0.7, "density": 0.6}}
        for name in "xy"
    ]
    return MergeRecipe(
        configuration={
            "merge_method": "dare_ties",
            "base_model": f"{root}/base",
            "models": [{"model": f"{root}/base"}, *sources],
            "dtype": "bfloat16",
        },
        seed=3,
    )


def test_the_same_bits_as_mergekit_and_in_memory(
    bfloat16: Path, tmp_path: Path, home: Path
) -> None:
    recipe = a_recipe(bfloat16)
    written = write_recipe(recipe, tmp_path / "ours", "cpu")
    assert ModelInPlace(ResidentMerger("cpu")).merge(recipe).digest == written
    options = merge_options(recipe).model_copy(update={"lora_merge_cache": str(tmp_path / "cache")})
    command, remark = recipe.how_to_repeat("mergekit_config.yml")
    assert "--lora-merge-cache CACHE" in command and "run it again" in remark
    located = MergeConfiguration.model_validate(recipe.located(mergekit_name).configuration)
    assert [model.lora is None for model in located.referenced_models()].count(False) == 2
    for run in ("first", "again"):
        run_merge(located, str(tmp_path / run), options)
    assert digest_files(tmp_path / "again") == written


def test_it_is_an_ordinary_checkpoint_made_once(bfloat16: Path, home: Path) -> None:
    model = f"{bfloat16}/base+{bfloat16}/x"
    folder = local_folder(model)
    assert home in folder.parents and (folder / "tokenizer.json").is_file()
    assert digest_files(folder) != digest_files(bfloat16 / "base")
    written = (folder / "config.json").stat().st_mtime_ns
    assert local_folder(model) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written
    assert OpenedModel(model, "models.x").config.hidden_size == 16
    assert len(OpenedModel(model, "models.x").tokenizer) == 19


def test_both_halves_count(bfloat16: Path, tmp_path: Path, home: Path) -> None:
    names = ("base", "x", "y")
    for name in names:
        shutil.copytree(bfloat16 / name, tmp_path / name)
    model = f"{tmp_path}/base+{tmp_path}/x"
    before = OpenedModel(model).fingerprint
    folder = local_folder(model)
    shutil.copyfile(
        tmp_path / "y/adapter_model.safetensors", tmp_path / "x/adapter_model.safetensors"
    )
    other = OpenedModel(model).fingerprint
    assert other.weights != before.weights and other.config == before.config
    assert local_folder(model) != folder
    config = tmp_path / "x/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 4'))
    assert OpenedModel(model).fingerprint.config != before.config
    save_tiny_model(tmp_path / "base", seed=9, dtype="bfloat16")
    assert OpenedModel(model).fingerprint.weights != other.weights


def test_a_study_and_an_evaluation_take_it(make_spec: SpecMaker, tiny: Path, home: Path) -> None:
    save_adapter(home / "x", tiny / "base", 0)
    model = f"{tiny}/base+{home}/x"
    spec = make_spec(models={"a": str(tiny / "a"), "x": model})
    assert checked(spec).layers["models.x"] == 4
    base, adapted = (score_checkpoint(m, spec, "test") for m in (f"{tiny}/base", model))
    assert base.scores["words.perplexity"] != adapted.scores["words.perplexity"]


def test_names(tiny: Path) -> None:
    name = "o/m@v1+o/x@v2"
    assert source_of(name).location(name) == ("o/m", "v1")
    assert OpenedModel("o/m+o/x").is_on_hub
    assert mergekit_name("o/m@v1+o/x@v2") == "o/m@v1+o/x@v2"
    assert mergekit_name(f"{tiny}/base+o/x") == f"{tiny}/base+o/x"


def break_config(adapter: Path, **content: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: (x / "adapter_config.json").unlink(),
            "models.a: {x} has no adapter_config.json, so it is no adapter; name one",
        ),
        (
            lambda x: (x / "adapter_model.safetensors").rename(x / "adapter_model.bin"),
            "models.a: {x} has no adapter_model.safetensors; pickled adapters (adapter_model.bin)",
        ),
        (
            lambda x: (x / "adapter_model.safetensors").write_bytes(b"cut short"),
            "models.a: {x}: adapter_model.safetensors cannot be read",
        ),
        (
            lambda x: (x / "adapter_config.json").write_text("{"),
            "models.a: {x}: adapter_config.json cannot be read",
        ),
        (
            lambda x: break_config(x, layer_replication=[[0, 4], [2, 4]]),
            "models.a: {x}: an adapter that replicates layers cannot be merged",
        ),
        (
            lambda x: (x / "adapter_config.json").write_text(
                '{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 8}'
            ),
            "models.a: {x}: an adapter of type PROMPT_TUNING cannot be merged into a model's",
        ),
        (
            lambda x: break_config(x, target_modules=["no_such_proj"]),
            "models.a: {x}: peft cannot put it on this base model: ",
        ),
        (
            lambda x: break_config(x, r=2),
            "models.a: {x}: tensor base_model.model.model.layers.0.mlp.down_proj.lora_A.weight "
            "has shape [4, 32], but this base model takes [2, 32]; name the model that it was",
        ),
    ],
)
def test_an_adapter_that_cannot_be_merged(
    make_spec: SpecMaker,
    tiny: Path,
    bfloat16: Path,
    tmp_path: Path,
    change: Callable[[Path], Any],
    message: str,
) -> None:
    adapter = Path(shutil.copytree(bfloat16 / "x", tmp_path / "x"))
    change(adapter)
    with pytest.raises(SpecError) as error:
        checked(make_spec(models={"a": f"{tiny}/base+{adapter}", "b": str(tiny / "b")}))
    assert str(error.value).startswith(message.format(x=adapter))


def test_an_adapter_of_another_base_model(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, home: Path
) -> None:
    wide = save_tiny_model(tmp_path / "wide", 9, hidden_size=32)
    model = f"{tiny}/base+{save_adapter(tmp_path / 'x', wide, 0)}"
    with pytest.raises(SpecError, match=r"shape .*, but this base model takes .*; name the model"):
        checked(make_spec(models={"a": model}))
    with pytest.raises(SpecError, match="but this base model takes"):
        score_checkpoint(model, make_spec(), "test")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{tiny}/base+", "write a model and one adapter, as MODEL+ADAPTER"),
        ("{tiny}/base+o/x+o/y", "write a model and one adapter, as MODEL+ADAPTER"),
        ("{tiny}/base+/no/where", "there is no folder /no/where; correct the path"),
        ("zoo:sub+o/x", "the zoo has no model 'zoo:sub'"),
    ],
)
def test_names_that_cannot_be(tiny: Path, model: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("+", r"\+")) as error:
        check_exists(model.format(tiny=tiny), "models.a")
    assert str(error.value).startswith("models.a: ")


def test_an_adapter_of_experts_that_were_modules(tmp_path: Path) -> None:
    """As of Mixtral before transformers 5, which has them in one tensor; the gate was elsewhere."""
    base = save_base(tmp_path / "base", "mixtral")
    adapter = save_lora(tmp_path / "adapter", base, 0, ["q_proj"])
    file = adapter / ADAPTER_WEIGHTS
    expert = "base_model.model.model.layers.0.block_sparse_moe.experts.1.w1"
    halves = {"lora_A": torch.ones(4, 16), "lora_B": torch.ones(32, 4)}
    added = {f"{expert}.{half}.weight": tensor for half, tensor in halves.items()}
    save_file(load_file(file) | added, file)
    words = "experts.1.w1.lora_A.weight has shape .*experts were modules of their own, merge it"
    with pytest.raises(SpecError, match=words):
        config_with_adapter(OpenedModel(str(base)).config, adapter, "models.a")
