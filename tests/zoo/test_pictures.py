"""The zoo's pictures: what is said of them is what is drawn, and no picture is in two splits."""

import io
import random
from typing import Any

import pytest
from PIL import Image

from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.evaluation.language import is_language
from evomerge_optuna.zoo.pictures import (
    CELL,
    CELLS,
    SIZE,
    Scene,
    content_words,
    draw_scene,
    held_out,
    held_out_keys,
    picture_rows,
    words,
)
from evomerge_optuna.zoo.problems import SPLIT_SIZES, Language


def opened(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def test_splits() -> None:
    pictures = {split: picture_rows(split) for split in SPLIT_SIZES}
    assert {name: len(split) for name, split in pictures.items()} == {
        "search": 200,
        "dev": 200,
        "test": 500,
    }
    files = [opened(row).tobytes() for split in pictures.values() for row in split]
    assert len(set(files)) == len(files) == len(held_out_keys())


def test_what_is_said_is_what_is_drawn() -> None:
    row: dict[str, Any]
    for row, scene in zip(picture_rows("search"), held_out()["search"], strict=True):
        image = opened(row)
        assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
        paper = (scene.paper,) * 3
        inked = 0
        for cell in range(CELLS**2):
            x, y = CELL * (cell % CELLS), CELL * (cell // CELLS)
            colours = image.crop((x, y, x + CELL, y + CELL)).getcolors()
            inked += len(colours) == 2
            assert paper in [colour for _, colour in colours] and len(colours) <= 2
        assert inked == scene.count == last_number(row["solution"]) == int(row["answer"])
        assert is_language(row["solution"], "ja")
        assert not is_language(scene.answer("en"), "ja")


@pytest.mark.parametrize(
    ("language", "answer", "caption"),
    [
        ("en", "The picture shows 2 yellow circles .", "2 yellow circles ."),
        ("ja", "この 絵 に は 黄色い 丸 が 2 個 あります 。", "黄色い 丸 が 2 個 。"),
    ],
)
def test_texts(language: Language, answer: str, caption: str) -> None:
    scene = Scene(3, 0, ((0, 1, 1, 11), (4, 1, 1, 11)), 240, 0)
    assert (scene.answer(language), scene.caption(language)) == (answer, caption)
    one = Scene(0, 2, ((0, 1, 1, 11),), 240, 1)
    assert one.answer("en") == "The picture shows 1 red square ."


def test_the_same_rng_gives_the_same_file_and_all_words_are_known() -> None:
    one, other = (draw_scene(random.Random(5)) for _ in range(2))
    assert one == other and one.picture().tobytes() == other.picture().tobytes()
    rng, known = random.Random(0), {*words(), *content_words()}
    for _ in range(200):
        scene = draw_scene(rng)
        for language in ("en", "ja"):
            texts = (scene.question(language), scene.answer(language), scene.caption(language))
            assert known.issuperset(" ".join(texts).split())


def test_files_are_stored_uncompressed() -> None:
    row: dict[str, Any] = picture_rows("dev")[0]
    content = row["image"]["bytes"]
    assert content.startswith(b"BM") and len(content) > 3 * SIZE**2
    assert opened(row).size == (SIZE, SIZE)
