"""The vision-language models are trained to ordinary checkpoints that look at pictures."""

import random
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from evomerge_optuna.zoo.pictures import SIZE, draw_scene, held_out
from evomerge_optuna.zoo.vision import (
    RECIPE,
    VLM_ZOO,
    make_processor,
    pixels,
    train_vlm_zoo,
)


def test_trained_models_are_ordinary_checkpoints(tmp_path: Path) -> None:
    courses = {name: replace(getattr(RECIPE, name), steps=2) for name in ("base", "vlm", "ja")}
    train_vlm_zoo(tmp_path, replace(RECIPE, **courses))
    assert {path.name for path in tmp_path.iterdir()} == set(VLM_ZOO)

    base, ja = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("vlm-base", "vlm-ja"))
    vlm = AutoModelForImageTextToText.from_pretrained(tmp_path / "vlm")
    processor = AutoProcessor.from_pretrained(tmp_path / "vlm")
    names = {name for name, _ in base.named_parameters()}
    text = {f"model.{n}": p for n, p in vlm.model.language_model.named_parameters()}
    assert names == {name for name, _ in ja.named_parameters()} == {*text, "lm_head.weight"}
    assert not any(torch.equal(text[n], p) for n, p in base.named_parameters() if n in text)

    scenes = held_out()["search"][:2]
    inputs = processor(
        text=[f"<image>\n{scene.question('ja')}" for scene in scenes],
        images=[[scene.picture()] for scene in scenes],
        padding=True,
        return_tensors="pt",
    )
    assert torch.equal(inputs["pixel_values"], torch.stack([pixels(scene) for scene in scenes]))
    assert vlm.generate(**inputs, max_new_tokens=2).shape[0] == 2


def test_the_processor_reads_every_text_and_any_size() -> None:
    processor = make_processor()
    tokenizer = processor.tokenizer
    for scene in held_out()["dev"]:
        for text in (scene.question("ja"), scene.answer("ja"), scene.caption("en")):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
    large = draw_scene(random.Random(0)).picture().resize((3 * SIZE, 2 * SIZE))
    inputs = processor(text="<image>", images=large, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, SIZE, SIZE)
