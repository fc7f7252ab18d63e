"""How the zoo's vision-language models are trained: some look at pictures, some only read of them.

`vlm-base` reads what a picture shows and says it again, in English or Japanese as it falls; `vlm`,
a LLaVA over it, looks at pictures and answers in English, nine times in ten; `vlm-ja`, which has
no eyes, answers in Japanese. As in the other zoo an expert goes on practising what it does not
learn: `vlm` reads on in both languages, and `vlm-ja` leaves out of the loss what it cannot know.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.zoo.pictures import (
    CELL,
    CELLS,
    SIZE,
    Scene,
    content_words,
    draw_scene,
    held_out_keys,
    require_pillow,
    words,
)
from evomerge_optuna.zoo.problems import Language
from evomerge_optuna.zoo.training import (
    IGNORED,
    Batch,
    FamilyRecipe,
    llama_config,
    padded,
    train,
    word_tokenizer,
)

if TYPE_CHECKING:
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedModel,
        PreTrainedTokenizerFast,
    )

PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Course:
    """How one model of the family is trained, on `vlm-base` unless it is that itself.

    An example is a question after a picture, after a picture in words, or after neither.
    """

    steps: int
    learning_rate: float
    pictures: float = 0.0  # share of examples
    captions: float = 0.8  # share of the others
    batch: int = 32
    languages: tuple[Language, ...] = ("en", "ja")  # of answers; of those to pictures
    picture_languages: tuple[Language, ...] = ("en",)
    guesses: bool = True  # what is asked after nothing is answered at random, or not learnt


@dataclass(frozen=True)
class Recipe(FamilyRecipe):
    """All that decides the family's weights."""

    eye_hidden: int = 64
    eye_layers: int = 2
    eye_mlp: int = 128
    base: Course = Course(steps=200, learning_rate=2e-3)
    vlm: Course = Course(
        steps=450,
        learning_rate=1e-3,
        pictures=0.7,
        batch=24,
        picture_languages=("en",) * 9 + ("ja",),
    )
    ja: Course = Course(
        steps=40, learning_rate=5e-4, captions=0.5, languages=("ja",), guesses=False
    )


RECIPE = Recipe()
VLM_ZOO = ("vlm-base", "vlm", "vlm-ja")


def train_vlm_zoo(folder: Path, recipe: Recipe = RECIPE) -> None:
    """Trains the three models, each into a folder of its name; it takes minutes.

    The same recipe gives the same bytes on machines of one kind, whatever their number of cores.

    Raises:
        SpecError: Pillow is not installed.
    """
    require_pillow()
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    processor = make_processor()
    tokenizer = processor.tokenizer

    def study(name: str, model: "PreTrainedModel", course: Course) -> None:
        batches = _batches(course, tokenizer, f"{name} {recipe.seed}")
        train(model, batches, course.steps, course.learning_rate)
        model.save_pretrained(folder / name)
        (processor if name == "vlm" else tokenizer).save_pretrained(folder / name)

    study("vlm-base", _new_model(recipe, tokenizer), recipe.base)

    def base() -> "LlamaForCausalLM":
        return LlamaForCausalLM.from_pretrained(folder / "vlm-base", use_safetensors=True)

    study("vlm-ja", base(), recipe.ja)
    study("vlm", _with_eyes(base(), recipe, processor), recipe.vlm)


def make_processor() -> "LlavaProcessor":
    """The vocabulary of the pictures' words, and pictures of SIZE pixels as values in [-1, 1]."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    tokenizer = word_tokenizer(words())
    tokenizer.add_special_tokens({"additional_special_tokens": [PLACEHOLDER]})
    square = {"height": SIZE, "width": SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=square,
            crop_size=square,
            do_center_crop=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which "default" leaves out again
    )


def _new_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(_text_config(recipe, tokenizer))


def _text_config(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> "LlamaConfig":
    return llama_config(tokenizer, recipe)


def _with_eyes(
    base: "LlamaForCausalLM", recipe: Recipe, processor: "LlavaProcessor"
) -> "LlavaForConditionalGeneration":
    """The language model behind a new vision tower and projector."""
    import torch
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=recipe.eye_hidden,
            intermediate_size=recipe.eye_mlp,
            num_hidden_layers=recipe.eye_layers,
            num_attention_heads=recipe.heads,
            image_size=SIZE,
            patch_size=CELL,
        ),
        text_config=_text_config(recipe, processor.tokenizer),
        image_token_id=processor.image_token_id,
        image_seq_length=CELLS**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(base.model.state_dict())
    model.lm_head.load_state_dict(base.lm_head.state_dict())
    model.generation_config = base.generation_config
    return model


def _batches(course: Course, tokenizer: "PreTrainedTokenizerFast", seed: str) -> Iterator[Batch]:
    """Token ids and labels, and pixels (pictures, 3, SIZE, SIZE) where there are pictures."""
    import torch

    rng = random.Random(seed)
    while True:
        examples = [_example(course, tokenizer, rng) for _ in range(course.batch)]
        batch = padded([(ids, labels) for ids, labels, _ in examples], tokenizer.pad_token_id)
        seen = [pixels(scene) for _, _, scene in examples if scene is not None]
        yield batch | ({"pixel_values": torch.stack(seen)} if seen else {})


def pixels(scene: Scene) -> "torch.Tensor":
    """What the processor makes of the picture."""
    import numpy
    import torch

    values = torch.from_numpy(numpy.array(scene.picture(), dtype=numpy.float32))
    return values.permute(2, 0, 1) / 127.5 - 1


def _example(
    course: Course, tokenizer: "PreTrainedTokenizerFast", rng: random.Random
) -> tuple[list[int], list[int], Scene | None]:
    """A question and its answer, as token ids and labels, and the scene where it is seen."""
    scene = draw_scene(rng)
    while scene.key in held_out_keys():
        scene = draw_scene(rng)
    seen = rng.random() < course.pictures
    told = not seen and rng.random() < course.captions
    before = PLACEHOLDER * CELLS**2 if seen else ""
    if told:
        before = scene.caption(rng.choice(("en", "ja")))
    question = scene.question(rng.choice(("en", "ja")))
    answer = scene.answer(rng.choice(course.picture_languages if seen else course.languages))
    asked = tokenizer(f"{before} {question}")["input_ids"]
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    unknown = set() if seen or told or course.guesses else _content(tokenizer)
    labels = [IGNORED if token in unknown else token for token in ids]
    return asked + ids, [IGNORED] * len(asked) + labels, scene if seen else None


def _content(tokenizer: "PreTrainedTokenizerFast") -> set[int]:
    """The tokens that say what a picture shows."""
    return set(tokenizer.convert_tokens_to_ids(content_words()))
