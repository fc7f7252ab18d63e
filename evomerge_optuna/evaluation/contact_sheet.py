"""Contact sheets: pictures of the same prompts, side by side, as one PNG file."""

import base64
import io
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 128  # pixels; smaller pictures are enlarged by whole numbers, larger ones made smaller
_JUDGED = 320  # pixels, at most, of a picture that a person is to judge
_GAP = 4
_LINE = 18  # height of a line of text
_NAMES = 120  # width of the models' names, of so many letters:
_LETTERS = 16
_PER_ROW = 8
_INK = (30, 30, 30)


def thumbnail(image: "Image", most: int = 256) -> str:
    """A picture of at most so many pixels in each direction: a PNG file in base64."""
    return base64.b64encode(_png(small(image, most))).decode()


def small(image: "Image", most: int = _JUDGED) -> "Image":
    """A copy of at most so many pixels in each direction; a `grid` shows no more of it."""
    found = image.copy()
    found.thumbnail((most, most))
    return found


def from_thumbnail(text: str) -> "Image":
    """The picture of a `thumbnail`."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def grid(images: "Sequence[Image]") -> bytes:
    """All pictures of one model, row by row, large enough for a person to judge them."""
    from PIL import Image

    cell = max(CELL, min(_JUDGED, *(max(image.size) for image in images)))

    rows = -(-len(images) // _PER_ROW)
    columns = min(len(images), _PER_ROW)
    step = cell + _GAP
    sheet = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP), "white")
    for place, image in enumerate(images):
        sheet.paste(_in_cell(image, cell), (place % _PER_ROW * step, place // _PER_ROW * step))
    return _png(sheet)


def side_by_side(models: "Mapping[str, Sequence[Image]]") -> bytes:
    """A row for each model, after its name; the columns are numbered from 1.

    Not named after their prompts, which may be in a script that no font here has.

    Args:
        models: pictures of the same prompts, by the models' names.
    """
    from PIL import Image, ImageDraw, ImageFont

    step, columns = CELL + _GAP, max(map(len, models.values()))
    sheet = Image.new("RGB", (_NAMES + columns * step, _LINE + len(models) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column in range(columns):
        pen.text((_NAMES + column * step, 0), str(column + 1), _INK, font)
    for row, (name, images) in enumerate(models.items()):
        top = _LINE + row * step
        pen.multiline_text((0, top), "\n".join(wrap(name, _LETTERS)), _INK, font)
        for column, image in enumerate(images):
            sheet.paste(_in_cell(image), (_NAMES + column * step, top))
    return _png(sheet)


def _in_cell(image: "Image", cell: int = CELL) -> "Image":
    from PIL import Image

    longest = max(image.size)
    factor = cell // longest if longest <= cell else cell / longest
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, how)


def _png(image: "Image") -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
