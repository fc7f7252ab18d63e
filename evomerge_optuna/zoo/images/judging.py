"""What a picture of the zoo shows, read from its pixels: colour, shape and manner, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy

from evomerge_optuna.zoo.images.scenes import (
    COLOURS,
    INDIGO,
    MANNERS,
    PAPERS,
    SHAPES,
    SIZE,
    draw_shape,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_IOU = 0.75  # intersection over union with a template of the shape
_FAR = 60.0  # from a colour, in RGB; the inks lie 90 apart at least
_FAR_FROM_PAPER = 40.0


@dataclass(frozen=True)
class Seen:
    """What one picture shows; None where it is none of them clearly."""

    colour: str | None
    shape: str | None
    manner: str | None


def judge(pictures: "NDArray[numpy.uint8]") -> list[Seen]:
    """What each of these pictures, (n, SIZE, SIZE, 3), shows.

    The paper and the waves tell the manner. The pixels that are nearer to an ink than to paper or
    waves are the shape, which is that of the template with the largest intersection over union.
    The mean within that template tells the colour.
    """
    if not len(pictures):
        return []
    seen = pictures.astype(numpy.float32)
    colours, shapes = _shapes(seen)
    return [
        Seen(colour, shape, manner)
        for colour, shape, manner in zip(colours, shapes, _manners(seen), strict=True)
    ]


def _manners(seen: "NDArray[numpy.float32]") -> list[str | None]:
    top = numpy.median(seen[:, :2].reshape(len(seen), -1, 3), axis=1)
    bottom = numpy.median(seen[:, -2:].reshape(len(seen), -1, 3), axis=1)
    papers = _distances(top, [PAPERS[manner] for manner in MANNERS])
    waves = _distances(bottom, [INDIGO])[:, 0] < _FAR
    found: list[str | None] = []
    for away, has_waves in zip(papers, waves, strict=True):
        manner = MANNERS[int(away.argmin())]
        fits = away.min() < _FAR_FROM_PAPER and has_waves == (manner == "japanese")
        found.append(manner if fits else None)
    return found


def _shapes(seen: "NDArray[numpy.float32]") -> tuple[list[str | None], list[str | None]]:
    """The colour and the shape of each."""
    inks = list(COLOURS.values())
    nearest = _distances(seen, [*inks, *PAPERS.values(), INDIGO]).argmin(-1)
    mask = (nearest < len(inks)).reshape(len(seen), -1).astype(numpy.float32)
    templates, names = _templates()
    both = mask @ templates.T
    iou = both / (mask.sum(1, keepdims=True) + templates.sum(1) - both)
    best = iou.argmax(1)
    inside = templates[best][:, :, None]
    mean = (seen.reshape(len(seen), -1, 3) * inside).sum(1) / inside.sum(1)
    away = _distances(mean, inks)
    by_name = list(COLOURS)
    return (
        [by_name[row.argmin()] if row.min() < _FAR else None for row in away],
        [
            names[which] if iou[place, which] >= LEAST_IOU else None
            for place, which in enumerate(best)
        ],
    )


def _distances(
    values: "NDArray[numpy.float32]", colours: Sequence[tuple[int, int, int]]
) -> "NDArray[numpy.float32]":
    """Of each value, (..., 3), to each colour, in RGB."""
    to = numpy.asarray(colours, dtype=numpy.float32)
    away: NDArray[numpy.float32] = numpy.linalg.norm(values[..., None, :] - to, axis=-1)
    return away


@cache
def _templates() -> "tuple[NDArray[numpy.float32], list[str]]":
    """Masks of the shapes, (templates, SIZE * SIZE), in sizes and places a little apart."""
    from PIL import Image, ImageDraw

    masks, names = [], []
    for shape in SHAPES:
        for larger in range(-2, 3):
            for right in range(-4, 5):
                for down in range(-3, 4):
                    image = Image.new("L", (SIZE, SIZE))
                    draw_shape(ImageDraw.Draw(image), shape, (right, down), 1, larger)
                    masks.append(numpy.array(image, dtype=numpy.float32).ravel())
                    names.append(shape)
    return numpy.stack(masks), names
