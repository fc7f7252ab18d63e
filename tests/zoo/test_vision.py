"""The vision-language family: ordinary checkpoints, the same at every build, built once."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from evomerge_optuna.zoo.pictures import SIZE, draw_scene, held_out
from evomerge_optuna.zoo.vision import (
    RECIPE,
    VLM_ZOO,
    Recipe,
    build_vlm_zoo,
    make_processor,
    pixels,
)
from tests.zoo.test_language import digests


def short(recipe: Recipe = RECIPE) -> Recipe:
    """The same family with three steps a model."""
    courses = {name: replace(getattr(recipe, name), steps=3) for name in ("base", "vlm", "ja")}
    return replace(recipe, **courses)


def test_two_builds_give_the_same_bytes_and_the_second_call_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "one"))
    seen: list[tuple[int, int]] = []
    first = build_vlm_zoo(lambda done, total: seen.append((done, total)), short())
    assert seen == [(done, 9) for done in range(1, 10)]
    build_vlm_zoo(lambda done, total: pytest.fail("trained again"), short())
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "two"))
    assert digests(build_vlm_zoo(recipe=short())) == digests(first)
    assert {path.name for path in first.iterdir()} == set(VLM_ZOO)

    base, ja = (AutoModelForCausalLM.from_pretrained(first / n) for n in ("vlm-base", "vlm-ja"))
    vlm = AutoModelForImageTextToText.from_pretrained(first / "vlm")
    processor = AutoProcessor.from_pretrained(first / "vlm")
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
