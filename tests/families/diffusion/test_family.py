"""Pipelines: what is merged of them, what must fit, and that it is what mergekit's kernels give.

Covers families.diffusion.fit, families.diffusion.part, families.diffusion.repeat,
families.diffusion.whole, models.pipelines and models.pipeline_part.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, UNet2DConditionModel
from mergekit.merge_methods.api import merge_state_dicts
from mergekit.scripts.merge_raw_pytorch import main as mergekit_pytorch
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families import completed, family_in, family_of, merged_folder
from evomerge_optuna.families.diffusion.repeat import why_it_differs
from evomerge_optuna.families.weights import check_weights
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.plan import plan_merge
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models import pipelines as pipelines_of_diffusers
from evomerge_optuna.models.opened import OpenedModel, OpenedModels
from evomerge_optuna.recipes.merge import Fused, MergeRecipe
from evomerge_optuna.report.export import mergekit_yaml, why_mergekit_differs
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import MergeSearchSpec, StudySpec, parse_spec
from evomerge_optuna.study.checks import runnable_tasks
from tests.checked import checked
from tests.conftest import SpecMaker
from tests.pipelines import save_pipeline, save_variant, sdxl_unet

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture
def study(make_spec: SpecMaker, pipelines: Path) -> Callable[..., StudySpec]:
    """A spec over the tiny pipelines, completed; `merge` and `models` are replaced."""

    def make(prefix: str = "", base: str = "base", **parts: Any) -> StudySpec:
        given: dict[str, Any] = {
            "base_model": str(pipelines / base),
            "models": {name: str(pipelines / name) for name in "ab"},
            "merge": {"method": "ties", "weight": [0, 2]},
        }
        spec = make_spec(**given | parts)
        return completed(spec, OpenedModels(spec.model_ids()))

    return make


def recipe(pipelines: Path, method: str, host: str = "base", **parameters: float) -> MergeRecipe:
    sources = ["dit-a"] if host == "dit" else ["a", "b"]
    models = [{"model": str(pipelines / name), "parameters": parameters} for name in sources]
    configuration = {
        "merge_method": method,
        "base_model": str(pipelines / host),
        "models": models,
    }
    return MergeRecipe(configuration=configuration, seed=3, host=str(pipelines / host))


def test_a_pipeline_is_known_by_its_index(pipelines: Path, tiny: Path) -> None:
    assert family_of(OpenedModel(str(pipelines / "base"))).name == "diffusion pipeline"
    assert family_in(pipelines / "dit") is family_in(pipelines / "base")
    assert family_in(tiny / "a").name == "causal language model"


def test_models_decide_host_and_engine(study: Callable[..., StudySpec], pipelines: Path) -> None:
    spec = study()
    assert (spec.host, spec.evaluation.engine) == (str(pipelines / "base"), "diffusers")
    found = checked(spec)
    assert (found.name, set(found.layers.values())) == ("UNet2DConditionModel", {1})
    assert set(found.dtypes.values()) == {"float32"}
    check_weights(spec, OpenedModels(spec.model_ids()))


def test_a_task_of_texts_and_an_engine_of_texts_are_refused_by_name(
    study: Callable[..., StudySpec],
) -> None:
    with pytest.raises(SpecError, match=r"tasks\.words: .* perplexity asks for texts"):
        runnable_tasks(study())


def test_blocks_are_groups(study: Callable[..., StudySpec], pipelines: Path) -> None:
    spec = study(merge={"method": "task_arithmetic", "blocks": True})
    groups = list(make_space(spec, checked(spec).layers).ranges())
    assert [name.removeprefix("a.weight.") for name in groups if name.startswith("a.")] == [
        *("down.0", "down.1", "mid", "up.0", "up.1", "other")
    ]
    plan = plan_merge(make_space(spec, checked(spec).layers).recipe({"a.weight.up.1": 0.25}))
    values = {
        name: max(own.get("weight", 0) for own in tensor.task.input_parameters.values())
        for name, tensor in plan.tensors.items()
    }
    assert {n for n, value in values.items() if value == 0.25} == {
        name for name in values if name.startswith("up_blocks.1.")
    }
    again = study(merge={"method": "task_arithmetic", "blocks": True}).decided_as(spec)
    assert isinstance(again, MergeSearchSpec)
    assert again.merge == spec.merge  # type: ignore[attr-defined]


def test_a_transformer_has_depth_and_a_unet_has_not(
    study: Callable[..., StudySpec], pipelines: Path
) -> None:
    spec = study(
        base="dit",
        models={"a": str(pipelines / "dit-a")},
        merge={"method": "task_arithmetic", "layer_group_size": 1},
    )
    found = checked(spec)
    assert list(make_space(spec, found.layers).ranges()) == ["a.weight.g0", "a.weight.g1"]
    with pytest.raises(SpecError, match=r"merge\.layer_group_size: .* no depth"):
        checked(study(merge={"method": "ties", "layer_group_size": 1}))


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "slerp", "della", "breadcrumbs"])
def test_a_merge_is_what_mergekits_kernels_give(pipelines: Path, method: str) -> None:
    own = {"slerp": {"t": 0.3}, "linear": {"weight": 0.4}}
    given = own.get(method, {"weight": 0.7, "density": 0.5})
    made = recipe(pipelines, method, **given)
    if method == "slerp":
        made.configuration["models"].pop()
        made.configuration["parameters"] = made.configuration["models"][0].pop("parameters")
    if method == "linear":
        del made.configuration["base_model"]
    plan = plan_merge(made)
    models = {
        name: load_file(next((pipelines / name / "unet").glob("*.safetensors")))
        for name in (("base", "a") if method == "slerp" else ("base", "a", "b"))
    }
    if method == "linear":
        del models["base"]
    ordered = {key: {name: own[name] for name in plan.order()} for key, own in models.items()}
    each = {k: v if k == "t" else {"a": v, "b": v} for k, v in given.items()}
    torch.manual_seed(made.seed)
    base = None if method == "linear" else "base"
    wanted = merge_state_dicts(ordered, method, parameters=each, base=base)
    for merger in (ResidentMerger("cpu"), MergekitMerger("cpu")):
        found = {name: tensor.clone() for name, tensor in merger.stream(made)}
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_mergekit_repeats_an_exported_recipe(
    study: Callable[..., StudySpec], pipelines: Path, tmp_path: Path
) -> None:
    spec = study()
    made = make_space(spec, checked(spec).layers).recipe({"a.weight.g0": 0.5, "b.weight.g0": 0.4})
    assert isinstance(made, MergeRecipe)
    assert why_mergekit_differs(made) == []
    (tmp_path / "recipe.yml").write_text(mergekit_yaml(made))
    command = (tmp_path / "recipe.yml").read_text().splitlines()[1].removeprefix("# ").split()
    assert command[0] == "mergekit-pytorch"
    arguments = [*command[1:-2], str(tmp_path / "recipe.yml"), str(tmp_path / "out"), "--quiet"]
    mergekit_pytorch(arguments, standalone_mode=False)
    found = load_file(tmp_path / "out" / "model.safetensors")
    wanted = {name: tensor.clone() for name, tensor in ResidentMerger("cpu").stream(made)}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_why_mergekit_differs_is_told(pipelines: Path) -> None:
    masked = recipe(pipelines, "dare_ties", weight=0.5, density=0.5)
    assert why_mergekit_differs(masked) == [
        "mergekit-pytorch takes the tensors in any order, which moves random masks."
    ]
    fused = masked.model_copy(update={"after": Fused(lora="x/y"), "components": ("text_encoder",)})
    assert why_it_differs(fused, files=2)[::3] == [
        "mergekit-pytorch reads one file of each model, and here are several.",
        "Into the merge x/y is fused at 1.",
    ]


def test_the_released_recipe_is_a_plain_weighted_sum(tmp_path: Path, home: Path) -> None:
    """EvoSDXL-JP-v1: four UNets of SDXL in two groups."""
    attention, rest = (0.188, 0.200, 0.392, 0.220), (0.159, 0.103, 0.650, 0.087)
    names = ("sdxl", "dpo", "juggernaut", "jsdxl")
    torch.manual_seed(0)
    first = save_pipeline(tmp_path / names[0])
    sdxl_unet().save_pretrained(first / "unet")
    for seed, name in enumerate(names[1:], start=1):
        save_variant(first, tmp_path / name, seed)
    weights = {
        name: [*({"filter": part, "value": a} for part in ATTENTION), {"value": r}]
        for name, a, r in zip(names, attention, rest, strict=True)
    }
    configuration = {
        "merge_method": "linear",
        "models": [
            {"model": str(tmp_path / name), "parameters": {"weight": weight}}
            for name, weight in weights.items()
        ],
        "parameters": {"normalize": False},
    }
    made = MergeRecipe(configuration=configuration, seed=0, host=str(tmp_path / "jsdxl"))
    found = {name: tensor.clone() for name, tensor in ResidentMerger("cpu").stream(made)}
    unets = [UNet2DConditionModel.from_pretrained(tmp_path / name / "unet") for name in names]
    states = [unet.state_dict() for unet in unets]
    assert found.keys() == states[0].keys()
    assert sum("attn" in name for name in found) > 50
    for name, tensor in found.items():
        own = attention if any(part in name for part in ATTENTION) else rest
        total, plain = torch.zeros_like(tensor), torch.zeros_like(tensor)
        for weight, state in zip(own, states, strict=True):
            total.addcmul_(state[name], torch.tensor(weight))  # fused where the processor can
            plain += weight * state[name]
        assert torch.equal(tensor, total), name
        torch.testing.assert_close(
            tensor, sum(w * s[name] for w, s in zip(own, states, strict=True))
        )


def test_text_encoders_are_merged_where_they_are_named(
    study: Callable[..., StudySpec], pipelines: Path, tmp_path: Path
) -> None:
    for name in "ab":
        shutil.copytree(pipelines / name, tmp_path / name)
        file = tmp_path / name / "text_encoder" / "model.safetensors"
        save_file({n: t + 1 for n, t in load_file(file).items()}, file, {"format": "pt"})
    models = {name: str(tmp_path / name) for name in "ab"}
    merge = {"method": "task_arithmetic", "components": ["unet", "text_encoder"]}
    spec = study(models=models, merge=merge)
    weights = {"a.weight.g0": 0.5, "b.weight.g0": 0.25}
    made = make_space(spec, checked(spec).layers).recipe(weights)
    assert isinstance(made, MergeRecipe)
    assert MergeRecipe.model_validate(made.model_dump()) == made
    check_weights(spec, OpenedModels(spec.model_ids()))
    digest = write_recipe(made, tmp_path / "out", "cpu")
    assert digest == write_recipe(made, tmp_path / "again", "cpu")
    base = load_file(pipelines / "base" / "text_encoder" / "model.safetensors")
    found = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")
    assert found.keys() == base.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, base[name] + 0.75)
    StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    with pytest.raises(SpecError, match=r"merge\.components: .* no 'vae' .* unet, text_encoder"):
        checked(study(merge={"method": "ties", "components": ["vae"]}))


def test_the_whole_is_the_host_but_for_what_is_merged(pipelines: Path, tmp_path: Path) -> None:
    made = recipe(pipelines, "task_arithmetic", host="dit", weight=0.5)
    digest = write_recipe(made, tmp_path / "out", "cpu")
    assert len(digest) == 64
    files = [path for path in (pipelines / "dit").rglob("*") if path.is_file()]
    kept = [path for path in files if "transformer" not in path.parts]
    for file in kept:
        again = tmp_path / "out" / file.relative_to(pipelines / "dit")
        assert again.read_bytes() == file.read_bytes()
    absent = dict.fromkeys(("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor"))
    pipeline = StableDiffusion3Pipeline.from_pretrained(tmp_path / "out", **absent)
    merged = dict(ResidentMerger("cpu").stream(made))
    state = pipeline.transformer.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in merged.items())


def test_a_part_is_made_once_and_holds_no_copy_of_the_denoiser(pipelines: Path) -> None:
    part = merged_folder(str(pipelines / "base"))
    assert part == merged_folder(str(pipelines / "base"))
    assert all(file.is_symlink() for file in part.glob("*.safetensors"))


def changed_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "unet" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def with_tensor(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        tensors.pop(name, None)
        save_file(tensors | ({} if tensor is None else {name: tensor}), file, {"format": "pt"})

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_config(block_out_channels=[8, 32]), r"models\.b: unet: block_out_channels"),
        (changed_config(_class_name="NoSuch"), r"models\.b: .* no model that diffusers knows"),
        (with_tensor("conv_in.bias", torch.zeros(9)), r"models\.b: tensor conv_in\.bias has shape"),
        (with_tensor("conv_in.bias", None), r"models\.b: tensor conv_in\.bias has shape None"),
        (
            with_tensor("conv_in.bias", torch.zeros(8).to(torch.float8_e4m3fn)),
            r"models\.b .*conv_in\.bias is float8",
        ),
        (lambda f: shutil.rmtree(f / "unet"), r"models\.b: .* unet has no config\.json"),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            r"models\.b: .* unet has no weights by the name diffusion_pytorch_model",
        ),
        (
            lambda f: (f / "text_encoder" / "model.safetensors").rename(
                f / "text_encoder" / "model.fp16.safetensors"
            ),
            r"models\.b: .* text_encoder has no weights by the name model\.safetensors; .*variant",
        ),
        (lambda f: (f / "model_index.json").write_text("{"), r"model_index\.json cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    study: Callable[..., StudySpec],
    pipelines: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    said: str,
) -> None:
    shutil.copytree(pipelines / "b", tmp_path / "b")
    change(tmp_path / "b")
    with pytest.raises(SpecError, match=said):
        checked(study(models={"a": str(pipelines / "a"), "b": str(tmp_path / "b")}))


def test_values_that_are_not_finite_are_found_in_every_component(
    study: Callable[..., StudySpec], pipelines: Path, tmp_path: Path
) -> None:
    shutil.copytree(pipelines / "b", tmp_path / "b")
    file = next((tmp_path / "b" / "vae").glob("*.safetensors"))
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * float("nan")}, file, {"format": "pt"})
    spec = study(models={"a": str(pipelines / "a"), "b": str(tmp_path / "b")})
    with pytest.raises(SpecError, match=r"models\.b .* NaN or infinite"):
        check_weights(spec, OpenedModels(spec.model_ids()))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"merge": {"method": "ties", "tokenizer_source": "union"}}, r"merge\.tokenizer_source"),
        ({"merge": {"method": "ties", "blocks": ["down_blocks.7"]}}, r"merge\.blocks: .*down_blo"),
        ({"merge": {"method": "ties", "layer_groups": ["self_attn"]}}, r"merge\.layer_groups"),
    ],
)
def test_what_pipelines_have_not_is_refused(
    study: Callable[..., StudySpec], parts: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        checked(study(**parts))


def test_pipelines_and_texts_are_not_merged(
    study: Callable[..., StudySpec], pipelines: Path, tiny: Path
) -> None:
    with pytest.raises(SpecError, match=r"models\.b: .* is no pipeline of diffusers"):
        checked(study(models={"a": str(pipelines / "a"), "b": str(tiny / "b")}))


def test_pipelines_of_two_classes_are_not_merged(
    study: Callable[..., StudySpec], pipelines: Path
) -> None:
    models = {"a": str(pipelines / "a"), "b": str(pipelines / "dit")}
    with pytest.raises(SpecError, match=r"models\.b: its .* SD3Transformer2DModel, that"):
        checked(study(models=models))


def test_without_diffusers_the_cure_is_told_before_blocks_are_looked_for(
    study: Callable[..., StudySpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines_of_diffusers, "find_spec", lambda _: None)
    with pytest.raises(SpecError, match=r"base_model .*pip install 'evomerge-optuna\[images\]'"):
        study(merge={"method": "ties", "blocks": True})


def test_pipelines_are_not_stacked(spec_content: Any, pipelines: Path) -> None:
    content = spec_content(stage="dfs", models={n: str(pipelines / n) for n in "ab"})
    del content["base_model"], content["merge"]
    spec = parse_spec(content)
    with pytest.raises(SpecError, match="stage: dfs stacks layers"):
        checked(completed(spec, OpenedModels(spec.model_ids())))
