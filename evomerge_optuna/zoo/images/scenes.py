"""What the image models draw: one coloured shape, on white paper or in the Japanese manner.

Pictures are RGB, SIZE pixels square. A prompt names the colour and the shape, in one of three
English or three Japanese wordings, and never the manner.
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from evomerge_optuna.zoo.problems import Language

SIZE = 32

Ink = tuple[int, int, int]

COLOURS: dict[str, Ink] = {
    "red": (210, 40, 40),
    "blue": (40, 70, 210),
    "green": (30, 150, 60),
    "yellow": (240, 200, 20),
}
SHAPES = ("circle", "triangle", "square", "cross")
MANNERS = ("plain", "japanese")
PAPERS: dict[str, Ink] = {"plain": (250, 250, 250), "japanese": (236, 218, 178)}
INDIGO: Ink = (40, 50, 110)  # of the waves along the lower edge
PLACES = tuple(product((-2, 0, 2), (-1, 1)))  # of the shape, in pixels from its usual centre

_JAPANESE = {
    **{"red": "赤い", "blue": "青い", "green": "緑の", "yellow": "黄色い"},
    **{"circle": "丸", "triangle": "三角", "square": "四角", "cross": "十字"},
}
_WORDINGS: "dict[Language, tuple[str, ...]]" = {
    "en": (
        "a {colour} {shape}",
        "a picture of a {colour} {shape}",
        "draw a {shape} that is {colour}",
    ),
    "ja": ("{colour} {shape}", "{colour} {shape} の 絵", "{colour} {shape} を 描いて"),
}
WORDINGS = 3  # in each language
_SPLIT_SIZES = {"search": 160, "dev": 160, "test": 320}


@dataclass(frozen=True)
class Prompt:
    """A text that asks for a coloured shape."""

    colour: str
    shape: str
    language: "Language"
    wording: int

    @property
    def text(self) -> str:
        words = (self.colour, self.shape)
        if self.language == "ja":
            words = (_JAPANESE[self.colour], _JAPANESE[self.shape])
        wording = _WORDINGS[self.language][self.wording]
        return wording.format(colour=words[0], shape=words[1])


@dataclass(frozen=True)
class Scene:
    """A picture of one shape; `place` is in pixels to the right and down."""

    colour: str
    shape: str
    manner: str
    place: tuple[int, int] = (0, 0)

    def picture(self) -> "Image":
        """The picture, RGB, SIZE pixels square."""
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (SIZE, SIZE), PAPERS[self.manner])
        pen = ImageDraw.Draw(image)
        if self.manner == "japanese":
            for left in range(-4, SIZE + 4, 8):
                pen.ellipse((left, 26, left + 8, 36), fill=INDIGO)
        draw_shape(pen, self.shape, self.place, COLOURS[self.colour])
        return image


def draw_shape(
    pen: "ImageDraw", shape: str, place: tuple[int, int], ink: Ink | int, larger: int = 0
) -> None:
    """Draws one of SHAPES, which have about the same area; `larger` by so many pixels."""
    x, y = 16 + place[0], 13 + place[1]

    def box(width: int, height: int) -> tuple[float, float, float, float]:
        right, down = (width + larger) / 2, (height + larger) / 2
        return x - right, y - down, x + right - 1, y + down - 1

    if shape == "circle":
        pen.ellipse(box(15, 15), fill=ink)
    elif shape == "triangle":
        left, top, right, bottom = box(22, 18)
        pen.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=ink)
    elif shape == "square":
        pen.rectangle(box(18, 18), fill=ink)
    else:
        pen.rectangle(box(22, 6), fill=ink)
        pen.rectangle(box(6, 22), fill=ink)


def all_scenes() -> list[Scene]:
    """Every scene there is, those of one colour, shape and manner beside each other."""
    return [Scene(*which) for which in product(COLOURS, SHAPES, MANNERS, PLACES)]


def all_prompts() -> list[Prompt]:
    """Every prompt there is."""
    return [Prompt(*which) for which in product(COLOURS, SHAPES, _WORDINGS, range(WORDINGS))]


@cache
def pixels() -> "NDArray[numpy.uint8]":
    """The pictures of all scenes: (scenes, SIZE, SIZE, 3)."""
    return numpy.stack([numpy.array(scene.picture()) for scene in all_scenes()])


def scene_rows(split: str) -> list[dict[str, object]]:
    """What to draw in a split: search (160), dev (160) or test (320), each shape equally often.

    Columns: `prompt`, in Japanese; `seed` of the noise; and what the picture should show, `colour`,
    `shape` and `manner`, which is always the Japanese one.
    """
    rng = random.Random(f"evomerge-optuna scenes {split}")
    size = _SPLIT_SIZES[split]
    kinds = list(product(COLOURS, SHAPES)) * (size // (len(COLOURS) * len(SHAPES)))
    rng.shuffle(kinds)
    return [
        {
            "prompt": Prompt(colour, shape, "ja", rng.randrange(WORDINGS)).text,
            "seed": rng.randrange(2**31),
            "colour": colour,
            "shape": shape,
            "manner": "japanese",
        }
        for colour, shape in kinds
    ]


def words() -> list[str]:
    """Every word of every prompt, in a fixed order."""
    texts = [wording for wordings in _WORDINGS.values() for wording in wordings]
    found = [word for text in texts for word in text.split() if not word.startswith("{")]
    return list(dict.fromkeys([*found, *COLOURS, *SHAPES, *_JAPANESE.values()]))
