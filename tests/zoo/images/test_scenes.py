"""The scenes of the image zoo, and how exactly their pictures are judged.

Covers zoo.images.judging, too.
"""

import numpy
import pytest

from evomerge_optuna.zoo.images.judging import judge
from evomerge_optuna.zoo.images.scenes import (
    all_prompts,
    all_scenes,
    pixels,
    scene_rows,
    words,
)


def test_every_scene_is_judged_as_it_was_drawn() -> None:
    drawn = [(scene.colour, scene.shape, scene.manner) for scene in all_scenes()]
    assert [(seen.colour, seen.shape, seen.manner) for seen in judge(pixels())] == drawn


def test_a_little_noise_changes_no_judgement() -> None:
    noise = numpy.random.default_rng(0).normal(0, 12, pixels().shape)
    noisy = (pixels() + noise).clip(0, 255).astype(numpy.uint8)
    assert judge(noisy) == judge(pixels())


@pytest.mark.parametrize("level", [0, 128, 250])
def test_an_empty_picture_shows_nothing(level: int) -> None:
    (seen,) = judge(numpy.full((1, 32, 32, 3), level, dtype=numpy.uint8))
    assert seen.shape is None and seen.colour is None


def test_two_halves_of_different_pictures_are_no_shape() -> None:
    circle, cross = (
        next(p for p, s in zip(pixels(), all_scenes(), strict=True) if s.shape == shape)
        for shape in ("circle", "cross")
    )
    both = numpy.concatenate([circle[:13], cross[13:]])[None]
    assert judge(both)[0].shape is None


def test_no_row_of_one_split_is_in_another() -> None:
    asked = [
        {(row["prompt"], row["seed"]) for row in scene_rows(split)}
        for split in ("search", "dev", "test")
    ]
    assert [len(rows) for rows in asked] == [160, 160, 320]
    assert len(set.union(*asked)) == 640


def test_rows_ask_for_each_shape_in_each_colour_equally_often() -> None:
    kinds = [(row["colour"], row["shape"]) for row in scene_rows("test")]
    assert {kinds.count(kind) for kind in kinds} == {20}
    assert {row["manner"] for row in scene_rows("test")} == {"japanese"}


def test_the_vocabulary_has_the_words_of_all_prompts() -> None:
    assert {word for prompt in all_prompts() for word in prompt.text.split()} == {*words()}
