"""The zoo's pictures: coloured shapes to be named and counted, and their splits."""

import io
import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.zoo.problems import SPLIT_SIZES, Language

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 16  # pixels; a shape lies in a cell of its own
CELLS = 3  # in each direction
SIZE = CELL * CELLS

_COLOURS = {
    "red": ("赤い", (210, 40, 40)),
    "blue": ("青い", (40, 70, 210)),
    "black": ("黒い", (30, 30, 30)),
    "yellow": ("黄色い", (225, 190, 20)),
}
_SHAPES = {"circle": "丸", "triangle": "三角", "square": "四角"}
_QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("What is in the picture ?", "How many are there , and of what ?"),
    "ja": ("絵 に 何 が あります か ？", "何 が いくつ ある か 教えて ください 。"),
}
_ANSWERS: dict[Language, str] = {
    "en": "The picture shows {count} {colour} {shape} .",
    "ja": "この 絵 に は {colour} {shape} が {count} 個 あります 。",
}
_CAPTIONS: dict[Language, str] = {
    "en": "{count} {colour} {shape} .",
    "ja": "{colour} {shape} が {count} 個 。",
}


def require_pillow() -> None:
    """Asks for Pillow, which draws and reads images.

    Raises:
        SpecError: it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise SpecError("images need Pillow: pip install 'evomerge-optuna[vision]'") from error


@dataclass(frozen=True)
class Scene:
    """Several equal shapes, and a question about them; colour, shape and form are list indices."""

    colour: int
    shape: int
    cells: tuple[tuple[int, int, int, int], ...]  # cell, pixels right and down in it, size
    paper: int  # brightness
    question_form: int

    @property
    def key(self) -> tuple[object, ...]:
        """What must not occur in two splits: all that decides a pixel."""
        return (self.colour, self.shape, self.cells, self.paper)

    @property
    def count(self) -> int:
        return len(self.cells)

    def question(self, language: Language) -> str:
        return _QUESTIONS[language][self.question_form]

    def answer(self, language: Language) -> str:
        """A sentence that says all that is to be seen."""
        return self._say(_ANSWERS, language)

    def caption(self, language: Language) -> str:
        """The picture in words, for who cannot see it."""
        return self._say(_CAPTIONS, language)

    def picture(self) -> "Image":
        """The picture, RGB, SIZE pixels square."""
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (SIZE, SIZE), (self.paper,) * 3)
        pen = ImageDraw.Draw(image)
        _, ink = list(_COLOURS.values())[self.colour]
        for cell, right, down, size in self.cells:
            x, y = CELL * (cell % CELLS) + right, CELL * (cell // CELLS) + down
            box = (x, y, x + size, y + size)
            if self.shape == 0:
                pen.ellipse(box, fill=ink)
            elif self.shape == 1:
                pen.polygon([(x, y + size), (x + size, y + size), (x + size / 2, y)], fill=ink)
            else:
                pen.rectangle(box, fill=ink)
        return image

    def _say(self, templates: dict[Language, str], language: Language) -> str:
        english, (japanese, _) = list(_COLOURS.items())[self.colour]
        shape = list(_SHAPES.items())[self.shape]
        plural = "s" if self.count > 1 else ""
        return templates[language].format(
            count=self.count,
            colour=english if language == "en" else japanese,
            shape=shape[0] + plural if language == "en" else shape[1],
        )


def draw_scene(rng: random.Random) -> Scene:
    """A random scene of 1 to 9 shapes."""
    count = rng.randint(1, CELLS**2)
    cells = []
    for cell in sorted(rng.sample(range(CELLS**2), count)):
        size = rng.randint(11, 13)
        cells.append((cell, rng.randint(1, 15 - size), rng.randint(1, 15 - size), size))
    return Scene(
        colour=rng.randrange(len(_COLOURS)),
        shape=rng.randrange(len(_SHAPES)),
        cells=tuple(cells),
        paper=rng.randint(225, 255),
        question_form=rng.randrange(2),
    )


@cache
def held_out() -> dict[str, tuple[Scene, ...]]:
    """The scenes of each split; no picture occurs twice, and training draws none of them."""
    rng = random.Random("evomerge-optuna pictures")
    seen: set[tuple[object, ...]] = set()
    splits = {}
    for split, size in SPLIT_SIZES.items():
        chosen: list[Scene] = []
        while len(chosen) < size:
            scene = draw_scene(rng)
            if scene.key not in seen:
                seen.add(scene.key)
                chosen.append(scene)
        splits[split] = tuple(chosen)
    return splits


@cache
def held_out_keys() -> frozenset[tuple[object, ...]]:
    """The keys of all splits."""
    return frozenset(scene.key for scenes in held_out().values() for scene in scenes)


def picture_rows(split: str) -> list[dict[str, object]]:
    """Japanese questions about the pictures of a split: search (200), dev (200) or test (500).

    Columns: `image`, the bytes of its file as `datasets` has them undecoded, `question`, `answer`
    (the number), `solution` (a right answer in full) and `caption`, which says in English what the
    picture shows.

    Raises:
        SpecError: Pillow is not installed.
    """
    require_pillow()
    return [
        {
            "image": {"bytes": _bitmap(scene.picture()), "path": None},
            "question": scene.question("ja"),
            "answer": str(scene.count),
            "solution": scene.answer("ja"),
            "caption": scene.caption("en"),
        }
        for scene in held_out()[split]
    ]


def _bitmap(image: "Image") -> bytes:
    """As a BMP file: no compression, so the same bytes whatever library would do it."""
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


def words() -> list[str]:
    """Every word of every text, but the numbers, in a fixed order."""
    texts = [text for forms in _QUESTIONS.values() for text in forms]
    texts += [*_ANSWERS.values(), *_CAPTIONS.values()]
    found = [word for text in texts for word in text.split() if not word.startswith("{")]
    return list(dict.fromkeys(found + _content()))


def content_words() -> list[str]:
    """The words and numbers that differ from one picture to another."""
    return [*map(str, range(1, CELLS**2 + 1)), *_content()]


def _content() -> list[str]:
    japanese = [colour for colour, _ in _COLOURS.values()]
    plurals = [shape + "s" for shape in _SHAPES]
    return [*_COLOURS, *japanese, *_SHAPES, *plurals, *_SHAPES.values()]
