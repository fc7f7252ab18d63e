"""The image zoo is trained: a few steps of it. Covers zoo.images.parts, zoo.images.training."""

import hashlib
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPProcessor

from evomerge_optuna.zoo.images.build import PIPELINES, Recipe, train_judge, train_pipelines
from evomerge_optuna.zoo.images.parts import make_tokenizer
from evomerge_optuna.zoo.images.training import Course, UNetCourse

SHORT = Recipe(
    vae=Course(2, 1e-3, 2),
    clip=Course(2, 1e-3, 16),
    base=UNetCourse(2, 1e-3, 4),
    colour=UNetCourse(1, 1e-3, 4, colours=True),
    shape=UNetCourse(1, 1e-3, 4, shapes=True),
    ja=UNetCourse(1, 1e-3, 4, manner="japanese"),
)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_pipelines_are_those_of_diffusers_and_training_repeats(tmp_path: Path) -> None:
    train_pipelines(tmp_path / "first", SHORT)
    train_pipelines(tmp_path / "again", SHORT)
    found = hashes(tmp_path / "first")
    assert found == hashes(tmp_path / "again")
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert len({found[f"{name}/{unet}"] for name in PIPELINES}) == len(PIPELINES)
    for part in ("vae/diffusion_pytorch_model", "text_encoder/model"):
        assert len({found[f"{name}/{part}.safetensors"] for name in PIPELINES}) == 1
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "first" / "sd-ja")
    noise = torch.Generator().manual_seed(0)
    (image,) = loaded("赤い 丸", generator=noise, num_inference_steps=2, guidance_scale=1).images
    assert image.size == (32, 32)


def test_the_pipelines_read_with_the_text_part_of_the_judge(tmp_path: Path) -> None:
    train_judge(tmp_path, SHORT)
    train_pipelines(tmp_path, SHORT)
    clip = CLIPModel.from_pretrained(tmp_path / "sd-clip")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "sd-base")
    reader = CLIPProcessor.from_pretrained(tmp_path / "sd-clip")
    ids = reader(text=["赤い 丸"], padding="max_length", max_length=10, return_tensors="pt")
    assert torch.equal(
        clip.text_model(ids["input_ids"]).last_hidden_state,
        pipeline.text_encoder(ids["input_ids"]).last_hidden_state,
    )


def test_clip_looks_at_the_end_of_a_text() -> None:
    # CLIPTextModel takes an end of text with id 2 for that of a model of an old kind.
    assert make_tokenizer().eos_token_id != 2
