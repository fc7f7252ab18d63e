"""The engine of diffusers: pictures of candidates, in one pipeline's memory.

Covers report.asking_images, too: what an export is asked.
"""

from pathlib import Path

import pytest
import torch

from evomerge_optuna.engines import diffusers
from evomerge_optuna.engines.base import Drawing, Picture
from evomerge_optuna.engines.diffusers import Builder, DiffusersEngine, check_diffusers, load_engine
from evomerge_optuna.errors import CandidateError, EvomergeError, SpecError
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.report import asking_images
from evomerge_optuna.spec import EvaluationSpec, ImageTask

SPEC = EvaluationSpec(engine="diffusers", device="cpu")
ASKED = [Picture("a red circle", 1), Picture("a blue square", 2), Picture("a red circle", 3)]
HOW = Drawing(steps=2, guidance=1.0)


def recipe(folder: Path, weight: float, host: str = "base", **more: object) -> MergeRecipe:
    sources = ("dit-a",) if host == "dit" else ("a", "b")
    configuration = {
        "merge_method": "dare_ties",
        "base_model": str(folder / host),
        "models": [
            {"model": str(folder / name), "parameters": {"weight": weight, "density": 0.5}}
            for name in sources
        ],
        **more,
    }
    return MergeRecipe(configuration=configuration, seed=1, host=str(folder / host))


def pixels(engine: DiffusersEngine, asked: list[Picture], how: Drawing = HOW) -> list[bytes]:
    return [image.tobytes() for image in engine.draw(asked, how)]


@pytest.mark.parametrize("host", ["base", "dit"])
def test_an_export_draws_what_the_candidate_drew(
    pipelines: Path, tmp_path: Path, home: Path, host: str
) -> None:
    builder = Builder(SPEC)
    builder.load(recipe(pipelines, 0.5, host))
    made = builder.build(recipe(pipelines, 0.5, host))
    assert isinstance(made.engine, DiffusersEngine)
    first = pixels(made.engine, ASKED)
    scored = asking_images.ask({}, made.engine)
    assert write_recipe(recipe(pipelines, 0.5, host), tmp_path / "out", "cpu") == made.digest
    assert digest_tensors(made.engine.denoiser.state_dict()) == made.digest
    exported = load_engine(tmp_path / "out", SPEC)
    assert pixels(exported, ASKED) == first
    found = asking_images.ask({}, exported)
    assert asking_images.difference(scored, found) is None
    assert "pixel for pixel" in asking_images.what_was_compared(scored, found)
    other = asking_images.ask({}, load_engine(pipelines / host, SPEC))
    named = "transformer" if host == "dit" else "unet"
    assert asking_images.difference(scored, other) == f"its {named} has other tensors"


def test_an_export_is_asked_in_the_size_of_each_task(pipelines: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a red circle"}\n' * 3)
    wide = {
        "type": "image",
        "data": {"search": {"path": str(tmp_path / "rows.jsonl")}},
        "size": [24, 16],
        "scorers": {"right": {"type": "zoo"}},
    }
    tasks = runners({"wide": ImageTask.model_validate(wide)})
    found = asking_images.ask(tasks, load_engine(pipelines / "base", SPEC))
    assert [len(picture) for picture in found.pictures] == [24 * 16 * 3] * 2


def test_candidates_are_made_in_the_memory_of_one_pipeline(pipelines: Path, home: Path) -> None:
    builder = Builder(SPEC)
    first = builder.build(recipe(pipelines, 0.5))
    assert isinstance(first.engine, DiffusersEngine)
    places = [tensor.data_ptr() for tensor in first.engine.denoiser.parameters()]
    drawn = pixels(first.engine, ASKED)
    second = builder.build(recipe(pipelines, 1.0))
    assert second.digest != first.digest
    assert pixels(first.engine, ASKED) != drawn
    assert builder.build(recipe(pipelines, 0.5)).digest == first.digest
    assert pixels(first.engine, ASKED) == drawn
    assert [tensor.data_ptr() for tensor in first.engine.denoiser.parameters()] == places
    files = SPEC.model_copy(update={"merger": "checkpoint"})
    assert Builder(files).build(recipe(pipelines, 0.5)).digest == first.digest


def test_a_picture_depends_on_its_prompt_and_seed_alone(pipelines: Path) -> None:
    engine = load_engine(pipelines / "base", SPEC)
    together = pixels(engine, ASKED)
    assert len(set(together)) == 3
    small = load_engine(pipelines / "base", SPEC.model_copy(update={"batch_size": 2}))
    assert pixels(small, ASKED) == together
    assert pixels(engine, ASKED[::-1]) == together[::-1]
    (larger,) = engine.draw(ASKED[:1], Drawing(steps=2, guidance=1.0, size=(24, 16)))
    assert larger.size == (24, 16)
    negative = [Picture("a red circle", 1, "a blue square")]
    guided = Drawing(steps=2, guidance=5.0)
    assert pixels(engine, negative, guided) != pixels(engine, ASKED[:1], guided)


def test_passes_are_counted(pipelines: Path) -> None:
    engine, counted = load_engine(pipelines / "base", SPEC), []
    with engine.counting(lambda: counted.append(1)):
        pixels(engine, ASKED)
    pixels(engine, ASKED)
    assert len(counted) == HOW.steps


def test_a_batch_is_drawn_when_it_is_asked_for(pipelines: Path) -> None:
    engine, counted = load_engine(pipelines / "base", SPEC.model_copy(update={"batch_size": 2})), []
    with engine.counting(lambda: counted.append(1)):
        pictures = engine.draw(ASKED, HOW)
        assert [len(counted) for _ in pictures] == [HOW.steps, HOW.steps, 2 * HOW.steps]
    assert engine.costs() == {"parameters": sum(p.numel() for p in engine.denoiser.parameters())}


def test_the_dtype_of_a_spec_is_that_of_the_pipeline(pipelines: Path, home: Path) -> None:
    spec = SPEC.model_copy(update={"dtype": "bfloat16"})
    made = Builder(spec).build(recipe(pipelines, 0.5))
    assert isinstance(made.engine, DiffusersEngine)
    assert {p.dtype for p in made.engine.denoiser.parameters()} == {torch.bfloat16}
    assert made.digest == Builder(SPEC).build(recipe(pipelines, 0.5)).digest
    half = Builder(SPEC).build(recipe(pipelines, 0.5, dtype="bfloat16"))
    assert isinstance(half.engine, DiffusersEngine)
    assert {p.dtype for p in half.engine.denoiser.parameters()} == {torch.bfloat16}


def test_what_a_pipeline_does_not_draw_is_the_candidates_fault(pipelines: Path) -> None:
    engine = load_engine(pipelines / "base", SPEC)
    with pytest.raises(CandidateError, match=r"StableDiffusionPipeline cannot draw .* divisible"):
        pixels(engine, ASKED, Drawing(steps=2, guidance=1.0, size=(17, 16)))


def test_weights_that_are_not_whole_are_refused(pipelines: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(pipelines / "base", tmp_path / "base")
    file = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({n: t for n, t in tensors.items() if n != "conv_in.bias"}, file, {"format": "pt"})
    with pytest.raises(EvomergeError, match=r"has no tensor conv_in\.bias"):
        load_engine(tmp_path / "base", SPEC)


def test_without_diffusers_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check_diffusers(SPEC)
    monkeypatch.setattr(diffusers, "find_spec", lambda _: None)
    with pytest.raises(SpecError, match=r"pip install 'evomerge-optuna\[images\]'"):
        check_diffusers(SPEC)
