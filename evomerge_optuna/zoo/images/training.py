"""How the parts of the image models are trained: each on one thread, from a seed of its own."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge_optuna.zoo.images.parts import (
    TOKENS,
    make_clip,
    make_scheduler,
    make_tokenizer,
    make_unet,
    make_vae,
)
from evomerge_optuna.zoo.images.scenes import (
    COLOURS,
    MANNERS,
    PLACES,
    SHAPES,
    WORDINGS,
    Prompt,
    all_prompts,
    all_scenes,
    pixels,
)

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel


@dataclass(frozen=True)
class Course:
    """How long a part is trained, and how fast it learns."""

    steps: int
    learning_rate: float
    batch: int


@dataclass(frozen=True)
class UNetCourse(Course):
    """What a UNet is taught. All else it paints at random, whatever the prompt says.

    What it is not taught it so goes on practising as its base did, and its task vector holds its
    own skill alone.
    """

    batch: int = 32
    colours: bool = False  # as the prompt says
    shapes: bool = False  # as the prompt says
    manner: str | None = None  # always this one


def train_vae(course: Course, seed: int) -> "AutoencoderTiny":
    """An autoencoder of all pictures, whose latents have a standard deviation of 1 when scaled."""
    import torch
    from torch.nn.functional import l1_loss, mse_loss

    with _seeded(seed) as draw:
        vae, pictures = make_vae(), _pictures()

        def loss() -> "torch.Tensor":
            seen = pictures[torch.randint(len(pictures), (course.batch,), generator=draw)]
            latents = vae.encode(seen).latents
            noise = 0.05 * torch.randn(latents.shape, generator=draw)
            found = vae.decode(latents + noise).sample
            large: torch.Tensor = 1e-4 * latents.square().mean()
            return l1_loss(found, seen) + mse_loss(found, seen) + large

        _train(vae, course, loss, warm_up=0.1, decay=0.0)
        with torch.inference_mode():
            spread = vae.encode(pictures).latents.std().item()
    vae.register_to_config(scaling_factor=round(1 / spread, 4))
    return vae


def train_clip(course: Course, seed: int) -> "CLIPModel":
    """CLIP (Radford et al. 2021) on pictures and what their prompts say, a batch of all kinds."""
    import torch
    from torch.nn.functional import cross_entropy

    with _seeded(seed) as draw:
        tokenizer = make_tokenizer()
        clip, pictures = make_clip(tokenizer), _pictures()
        # One picture of each kind, so that no two of a batch have the same prompt.
        kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
        each = len(MANNERS) * len(PLACES)
        target, words = torch.arange(len(kinds)), random.Random(seed)

        def loss() -> "torch.Tensor":
            places = torch.randint(each, (len(kinds),), generator=draw)
            seen = pictures[torch.arange(len(kinds)) * each + places]
            seen = seen + 0.05 * torch.randn(seen.shape, generator=draw)
            texts = [
                Prompt(*kind, words.choice(("en", "ja")), words.randrange(WORDINGS)).text
                for kind in kinds
            ]
            read = tokenizer(texts, padding="max_length", return_tensors="pt")
            logits = clip(
                input_ids=read["input_ids"],
                attention_mask=read["attention_mask"],
                pixel_values=seen,
            ).logits_per_text
            return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2

        _train(clip, course, loss, warm_up=0.1)
    return clip


@dataclass(frozen=True)
class Lessons:
    """What UNets are trained on.

    Attributes:
        latents: of all scenes, scaled: (scenes, 4, height, width).
        hidden: of all prompts, from the text encoder: (prompts, TOKENS, width).
    """

    latents: "torch.Tensor"
    hidden: "torch.Tensor"


def lessons(vae: "AutoencoderTiny", text_encoder: "CLIPTextModel") -> Lessons:
    """The lessons in the latents of this autoencoder and the words of this text encoder."""
    import torch

    texts = [prompt.text for prompt in all_prompts()]
    read = make_tokenizer()(texts, padding="max_length", max_length=TOKENS, return_tensors="pt")
    with torch.no_grad():
        latents = vae.encode(_pictures()).latents * vae.config.scaling_factor
        return Lessons(latents, text_encoder(read["input_ids"])[0])


def new_unet(seed: int) -> "UNet2DConditionModel":
    """A UNet with random weights."""
    with _seeded(seed):
        return make_unet()


def train_unet(
    unet: "UNet2DConditionModel", course: UNetCourse, lessons: Lessons, seed: int
) -> None:
    """Trains a UNet to predict v at random levels of noise, spread evenly over each batch."""
    import torch
    from torch.nn.functional import mse_loss

    scenes, prompts, colours = all_scenes(), all_prompts(), list(COLOURS)
    coloured = torch.tensor([colours.index(prompt.colour) for prompt in prompts])
    shaped = torch.tensor([SHAPES.index(prompt.shape) for prompt in prompts])
    signal_of = make_scheduler().alphas_cumprod
    levels, each = len(signal_of), len(PLACES)
    assert len(scenes) == len(colours) * len(SHAPES) * len(MANNERS) * each

    with _seeded(seed) as draw:

        def drawn(most: int) -> "torch.Tensor":
            return torch.randint(most, (course.batch,), generator=draw)

        def loss() -> "torch.Tensor":
            asked = drawn(len(prompts))
            colour = coloured[asked] if course.colours else drawn(len(colours))
            shape = shaped[asked] if course.shapes else drawn(len(SHAPES))
            manner = drawn(len(MANNERS))
            if course.manner is not None:
                manner = torch.full_like(manner, MANNERS.index(course.manner))
            kind = (colour * len(SHAPES) + shape) * len(MANNERS) + manner
            picture = lessons.latents[kind * each + drawn(each)]
            spread = torch.arange(course.batch) + torch.rand(course.batch, generator=draw)
            level = (spread / course.batch * levels).long().clamp(max=levels - 1)
            noise = torch.randn(picture.shape, generator=draw)
            signal = signal_of[level].view(-1, 1, 1, 1).sqrt()
            rest = (1 - signal_of[level]).view(-1, 1, 1, 1).sqrt()
            noisy, wanted = signal * picture + rest * noise, signal * noise - rest * picture
            return mse_loss(unet(noisy, level, lessons.hidden[asked]).sample, wanted)

        _train(unet, course, loss, warm_up=0.05)


def _pictures() -> "torch.Tensor":
    """All scenes, (scenes, 3, SIZE, SIZE), with values in [-1, 1]."""
    import torch

    return torch.from_numpy(pixels()).permute(0, 3, 1, 2).float() / 127.5 - 1


@contextmanager
def _seeded(seed: int) -> Iterator["torch.Generator"]:
    """Within the block one thread and new weights from this seed; gives a generator of it."""
    import torch

    from evomerge_optuna.machine import threads

    with threads(1), torch.random.fork_rng():
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def _train(
    model: "torch.nn.Module",
    course: Course,
    loss: "Callable[[], torch.Tensor]",
    *,
    warm_up: float,
    decay: float = 0.01,
) -> None:
    """AdamW, whose learning rate rises over a share of the steps and then falls to nothing."""
    import torch

    model.train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=course.learning_rate,
        betas=(0.9, 0.98),  # 0.999 remembers longer than a course lasts
        weight_decay=decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, course.learning_rate, total_steps=course.steps, pct_start=warm_up
    )
    for _ in range(course.steps):
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
