"""A LoRA after the merge gives what diffusers' own fuse_lora gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.diffusion.lora import fingerprint_lora, lora_file
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.recipe_merger import RecipeMerger, write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.recipes.merge import Fused, MergeRecipe
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import StudySpec
from tests.checked import checked

# Of pytest, a fixture of the package.
from tests.families.diffusion.test_family import study  # noqa: F401


@pytest.fixture(scope="module")
def lora(pipelines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    pipeline = StableDiffusionPipeline.from_pretrained(pipelines / "base")
    torch.manual_seed(0)
    parts = ["to_q", "to_v", "conv1"]
    config = LoraConfig(r=2, lora_alpha=4, target_modules=parts, init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    layers = get_peft_model_state_dict(pipeline.unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_it_is_fused_as_diffusers_fuses_it(
    pipelines: Path,
    lora: Path,
    tmp_path: Path,
    study: Callable[..., StudySpec],  # noqa: F811
    scale: float,
) -> None:
    merge = {"method": "ties", "weight": 0.7, "density": [0.5, 1]}
    plain = study(merge=merge)
    fused = study(merge=merge | {"after": {"lora": str(lora), "scale": scale}})
    values = {"a.density.g0": 0.5, "b.density.g0": 0.5}
    recipes = [make_space(spec, checked(spec).layers).recipe(values) for spec in (plain, fused)]
    without, after = recipes
    assert isinstance(without, MergeRecipe)
    assert isinstance(after, MergeRecipe)
    assert after.digest() != without.digest()
    write_recipe(without, tmp_path / "merged", "cpu")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "merged")
    pipeline.load_lora_weights(lora)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()
    wanted = pipeline.unet.state_dict()
    digests = set()
    for make in (lambda: ResidentMerger("cpu"), lambda: MergekitMerger("cpu")):
        stream = RecipeMerger("cpu", make).part(after)
        found = {name: tensor.clone() for name, tensor in stream}
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        digests.add(stream.digest())
    assert digests == {write_recipe(after, tmp_path / "fused", "cpu")}
    assert fingerprint_lora(fused).keys() == {"merge.after.lora"}
    assert fingerprint_lora(plain) == {}


def test_what_is_no_lora_of_the_denoiser_is_refused(
    lora: Path,
    tmp_path: Path,
    study: Callable[..., StudySpec],  # noqa: F811
) -> None:
    save_file({"other.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    merge = {"method": "ties", "after": {"lora": str(tmp_path / "other.safetensors")}}
    with pytest.raises(SpecError, match=r"merge\.after\.lora: .*other\.safetensors"):
        checked(study(merge=merge))
    with pytest.raises(SpecError, match=r"merge\.after\.lora: there is no file"):
        lora_file("./nothing.safetensors")
    assert lora_file(str(lora)).name == "pytorch_lora_weights.safetensors"
    assert Fused(lora="a/b").scale == 1.0
