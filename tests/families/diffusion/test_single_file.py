"""Checkpoints of one file: read by diffusers' own loader, then as any pipeline.

Covers models.single_file, models.sources.single_file and spec.single_file.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from evomerge_optuna.engines.diffusers import Builder
from evomerge_optuna.errors import IncompleteError, SpecError
from evomerge_optuna.families import CAUSAL_LM, completed
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.models.original_layout import in_original_layout
from evomerge_optuna.models.pipelines import is_pipeline
from evomerge_optuna.models.single_file import write_single_file
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.report.card import shown_model
from evomerge_optuna.report.export import export
from evomerge_optuna.run import Limits, run_study
from evomerge_optuna.spec import EvaluationSpec, StudySpec, load_spec, parse_spec
from evomerge_optuna.spec.single_file import with_pipeline
from evomerge_optuna.store.open import open_store
from tests.checked import checked
from tests.conftest import SpecMaker
from tests.original_layout import save_single_file, sd_pipeline, sdxl_pipeline


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipelines `base`, `a` and `b` as folders, and the last two as files, too."""
    root = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(("base", "a", "b")):
        pipeline = sd_pipeline(seed)
        pipeline.save_pretrained(root / name)
        save_single_file(pipeline, root / f"{name}.safetensors")
    return root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_file_becomes_the_folder_that_it_was_made_from(
    files: Path, tmp_path: Path, home: Path, dtype: torch.dtype
) -> None:
    file = save_single_file(sd_pipeline(1), tmp_path / "own.safetensors", dtype)
    found = local_folder(f"{file}@{files / 'base'}")
    assert is_pipeline(found)
    for part in ("unet", "vae", "text_encoder"):
        (own,), (want,) = ((f / part).glob("*.safetensors") for f in (found, files / "a"))
        have, wanted = load_file(own), load_file(want)
        assert have.keys() == wanted.keys()
        assert all(torch.equal(have[name], wanted[name].to(dtype)) for name in wanted)


def test_a_file_of_sdxl_has_two_text_encoders(tmp_path: Path, home: Path) -> None:
    pipeline = sdxl_pipeline(1)
    pipeline.save_pretrained(tmp_path / "xl")
    sdxl_pipeline(2).save_pretrained(tmp_path / "base")
    file = save_single_file(pipeline, tmp_path / "xl.safetensors")
    found = local_folder(f"{file}@{tmp_path / 'base'}")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (own,), (want,) = ((f / part).glob("*.safetensors") for f in (found, tmp_path / "xl"))
        have, wanted = load_file(own), load_file(want)
        assert have.keys() == wanted.keys()
        assert all(torch.equal(have[name], wanted[name]) for name in wanted)


def recipe(base: str, *sources: str) -> MergeRecipe:
    given = [{"model": name, "parameters": {"weight": 0.6, "density": 0.7}} for name in sources]
    configuration = {"merge_method": "ties", "base_model": base, "models": given}
    return MergeRecipe(configuration=configuration, seed=0, host=base)


def test_a_merge_of_files_is_that_of_their_folders(files: Path, home: Path) -> None:
    builder = Builder(EvaluationSpec(device="cpu"))
    folders = [str(files / name) for name in ("base", "a", "b")]
    single = [f"{folder}.safetensors@{folders[0]}" for folder in folders]
    want = builder.build(recipe(*folders)).take_digest()
    assert builder.build(recipe(folders[0], *single[1:])).take_digest() == want
    assert builder.build(recipe(*single)).take_digest() == want


def test_a_study_of_files_takes_the_configuration_of_its_base(
    make_spec: SpecMaker, files: Path, home: Path
) -> None:
    spec = study(make_spec, files)
    assert spec.models["a"] == f"{files / 'a.safetensors'}@{files / 'base'}"
    assert parse_spec(spec.model_dump(mode="json", by_alias=True)) == spec
    assert checked(spec).parameters > 0


def test_a_card_names_files_and_their_pipelines_without_the_disk() -> None:
    assert shown_model("/home/me/a.safetensors@/home/me/sd") == "a.safetensors@sd"
    assert shown_model("/home/me/a.safetensors@org/sd") == "a.safetensors@org/sd"


def test_files_without_a_pipeline_among_the_models_are_left_to_the_hub() -> None:
    files = {"a": "./a.safetensors", "b": "./b.safetensors@org/repo"}
    assert with_pipeline(files) == files
    assert with_pipeline(files | {"c": "zoo:sd-base"})["a"] == "./a.safetensors@zoo:sd-base"


def test_paths_of_a_file_and_of_its_pipeline_begin_at_the_spec(
    spec_content: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    import yaml

    content = spec_content(models={"a": "a.safetensors@./sd", "b": "./b.safetensors@org/repo"})
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(content))
    models = load_spec(tmp_path / "spec.yaml").models
    assert models["a"] == f"{tmp_path}/a.safetensors@{tmp_path}/sd"
    assert models["b"] == f"{tmp_path}/b.safetensors@org/repo"


def without(prefix: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        save_file({n: t for n, t in load_file(file).items() if not n.startswith(prefix)}, file)

    return change


def quantized(file: Path) -> None:
    tensors = load_file(file)
    name = "model.diffusion_model.out.2.weight"
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, file)


def of_another_shape(file: Path) -> None:
    pipeline = sd_pipeline(1)
    pipeline.unet = type(pipeline.unet).from_config(
        {**pipeline.unet.config, "block_out_channels": (8, 8)}
    )
    save_single_file(pipeline, file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, r"models\.b: .*\.safetensors is not there; correct"),
        (without("model."), r"models\.b: .*no checkpoint of a whole pipeline.* merge\.after\.lora"),
        (lambda f: f.write_bytes(b"no"), r"models\.b: .* cannot be read"),
        (quantized, r"models\.b: .*out\.2\.weight is float8"),
        (without("cond_stage"), r"b\.safetensors: diffusers does not read .*CLIPTextModel.*@PIPE"),
        (without("first_stage"), r"b\.safetensors: diffusers does not read .*AutoencoderKL.*@PIPE"),
        (without("model.diffusion_model.out.2"), r"b\.safetensors: .*base: it lacks tensors"),
        (of_another_shape, r"b\.safetensors: diffusers does not read it with the config.*@PIPE"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    make_spec: SpecMaker,
    files: Path,
    tmp_path: Path,
    home: Path,
    change: Callable[[Path], object],
    said: str,
) -> None:
    file = Path(shutil.copy(files / "b.safetensors", tmp_path))
    change(file)
    with pytest.raises(SpecError, match=said):
        checked(study(make_spec, files, b=str(file)))


def test_a_file_with_a_plus_in_its_name_is_no_adapter(
    make_spec: SpecMaker, files: Path, tmp_path: Path
) -> None:
    file = shutil.copy(files / "b.safetensors", tmp_path / "mix+v2.safetensors")
    with pytest.raises(
        SpecError, match=r"models\.b: .*name of an adapter; rename the folder or th"
    ):
        checked(study(make_spec, files, b=str(file)))


def test_an_export_is_one_file_too(
    files: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "equal.py").write_text("def score(images, rows):\n    return [1] * len(rows)\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a red circle"}))
    task = {
        "type": "image",
        "data": {"search": {"path": str(tmp_path / "rows.jsonl")}},
        "steps": 1,
        "guidance": 1,
        "scorers": {"own": {"type": "python", "function": "equal:score"}},
    }
    content = {
        "study": "single",
        "stage": "ps",
        "base_model": str(files / "base"),
        "models": {name: str(files / name) for name in "ab"},
        "merge": {"method": "ties", "weight": [0, 2]},
        "trials": 1,
        "tasks": {"look": task},
        "objectives": [{"maximize": "look.own"}],
    }
    study = run_study(open_store(f"sqlite:///{tmp_path / 'db'}"), parse_spec(content), Limits())
    best, said = study.best(), list[str]()
    assert best is not None
    digest = export(study, best, tmp_path / "out", said.append, single_file=True)
    assert said[-1].startswith("checked: diffusers reads every tensor of out.safetensors")
    found = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "out" / "out.safetensors"), config=str(tmp_path / "out")
    )
    assert digest_tensors(found.unet.state_dict()) == digest


def test_a_file_from_which_diffusers_reads_other_tensors_is_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(folder: Path, where: str, device: str = "cpu") -> dict[str, torch.Tensor]:
        found = in_original_layout(folder, where, device)
        turned = "first_stage_model.decoder.mid.attn_1.q.weight"
        return found | {turned: found[turned].transpose(0, 1).contiguous()}

    write_single_file(files / "a", tmp_path / "a.safetensors", "it")
    monkeypatch.setattr("evomerge_optuna.models.single_file.in_original_layout", changed)
    with pytest.raises(IncompleteError, match=r"b\.safetensors diffusers reads another vae from"):
        write_single_file(files / "a", tmp_path / "b.safetensors", "it")


def test_only_pipelines_are_written_as_one_file() -> None:
    with pytest.raises(SpecError, match=r"--single-file: a causal language model is not written"):
        CAUSAL_LM.check_single_file(None)


def test_the_pipeline_of_a_file_is_one(
    make_spec: SpecMaker, files: Path, tiny: Path, home: Path
) -> None:
    with pytest.raises(SpecError, match=r"models\.b: .* with the configuration of .* no pipeline"):
        checked(study(make_spec, files, b=f"{files / 'b.safetensors'}@{tiny / 'base'}"))


def study(make_spec: SpecMaker, files: Path, **models: str) -> StudySpec:
    spec = make_spec(
        base_model=str(files / "base"),
        models={name: str(files / f"{name}.safetensors") for name in "ab"} | models,
        merge={"method": "ties", "weight": [0, 2]},
    )
    return completed(spec, OpenedModels(spec.model_ids()))
