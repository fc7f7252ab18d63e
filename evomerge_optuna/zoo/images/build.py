"""The image models as folders: real diffusers pipelines, and the CLIP that judges pictures.

`sd-base` draws some shape in some colour and manner, whatever it is asked for. `sd-colour` obeys
what a prompt says of the colour, `sd-shape` what it says of the shape, and `sd-ja` draws everything
in the Japanese manner. Only a merge can do all three. They share their autoencoder and their text
encoder, which is the text part of `sd-clip`.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.zoo.images.parts import make_processor, make_scheduler, make_tokenizer
from evomerge_optuna.zoo.images.training import (
    Course,
    UNetCourse,
    lessons,
    new_unet,
    train_clip,
    train_unet,
    train_vae,
)

if TYPE_CHECKING:
    from transformers import CLIPModel

PIPELINES = ("sd-base", "sd-colour", "sd-shape", "sd-ja")
JUDGES = ("sd-clip",)


_VAE = Course(steps=900, learning_rate=4e-3, batch=8)
_CLIP = Course(steps=300, learning_rate=2e-3, batch=16)
_BASE = UNetCourse(steps=500, learning_rate=2e-3)
_COLOUR = UNetCourse(steps=300, learning_rate=1e-3, colours=True)
_SHAPE = UNetCourse(steps=400, learning_rate=1e-3, shapes=True)
_JA = UNetCourse(steps=50, learning_rate=5e-4, manner="japanese")


@dataclass(frozen=True)
class Recipe:
    """All that decides the image models' weights."""

    seed: int = 0
    vae: Course = _VAE
    clip: Course = _CLIP
    base: UNetCourse = _BASE
    colour: UNetCourse = _COLOUR
    shape: UNetCourse = _SHAPE
    ja: UNetCourse = _JA

    @property
    def experts(self) -> dict[str, UNetCourse]:
        return {"sd-colour": self.colour, "sd-shape": self.shape, "sd-ja": self.ja}


RECIPE = Recipe()


def train_judge(folder: Path, recipe: Recipe = RECIPE) -> None:
    """Trains `sd-clip` into a folder of its name."""
    _clip(recipe).save_pretrained(folder / JUDGES[0])
    make_processor().save_pretrained(folder / JUDGES[0])


def train_pipelines(folder: Path, recipe: Recipe = RECIPE) -> None:
    """Trains the four pipelines into folders of their names, one part after the other.

    Deterministic on machines of one kind, whatever their number of cores.
    """
    from diffusers import StableDiffusionPipeline

    clip = _clip(recipe)
    vae = train_vae(recipe.vae, recipe.seed)
    taught = lessons(vae, clip.text_model)
    base = new_unet(recipe.seed)
    train_unet(base, recipe.base, taught, recipe.seed)
    unets = {"sd-base": base}
    for seed, (name, course) in enumerate(recipe.experts.items(), recipe.seed + 1):
        unets[name] = deepcopy(base)
        train_unet(unets[name], course, taught, seed)
    for name, unet in unets.items():
        StableDiffusionPipeline(
            vae=vae,
            text_encoder=clip.text_model,
            tokenizer=make_tokenizer(),
            unet=unet,
            scheduler=make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder / name)


def _clip(recipe: Recipe) -> "CLIPModel":
    return train_clip(recipe.clip, recipe.seed)
