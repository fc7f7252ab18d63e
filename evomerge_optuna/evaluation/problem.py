"""A problem of a task, and how its parts come out of a row of data."""

import datetime
import decimal
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.spec.data import columns

Row = Mapping[str, object]  # of a data set, by its columns


@dataclass(frozen=True)
class Problem:
    """What the model is given (a prompt, or a text to judge), and the answer if there is one.

    Where several answers are right, `others` has the rest of them. Where it is a choice, the
    options, of which the answers are some. Of python and lm_eval tasks the text is the row as JSON,
    of a vqa task the image is that file's content. `content` is what the data has put into the
    prompt: two tasks may ask the same in other words. `place` is where the data has it.
    """

    text: str
    reference: str | None = None
    options: tuple[str, ...] = ()
    content: str = field(default="", compare=False)
    image: bytes | None = field(default=None, repr=False)
    others: tuple[str, ...] = ()
    place: str = field(default="", compare=False)

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers; none where the task has no answers."""
        return () if self.reference is None else (self.reference, *self.others)

    def facts(self) -> list[object]:
        """All that decides how a model is asked and judged, for the hash of the data."""
        found: list[object] = [self.text, self.reference]
        if self.options:
            found.append(self.options)
        if self.others:
            found.append({"or": self.others})
        if self.image is not None:
            found.append(hashlib.sha256(self.image).hexdigest())
        return found


def filled(template: str, row: Row, where: str) -> str:
    """The template with the row's columns in it.

    Raises:
        SpecError: there is no such column, or it holds no text.
    """
    parts = []
    for before, name, _, _ in Formatter().parse(template):
        parts.append(before)
        if name:
            parts.append(text_of(column(name, row, where), where, name))
    return "".join(parts)


def content(template: str, row: Row) -> str:
    """The columns that a template names, whatever it says around them."""
    return "\n".join(str(column(name, row, "")) for name in sorted({*columns(template)}))


def column(name: str | None, row: Row, where: str) -> object:
    """The row's value in a column, or at a path into one.

    A path as `choices.text` leads through mappings by their keys and through lists by a number,
    from 0, or else through each part of the list. A column of that very name comes first.

    Raises:
        SpecError: there is no such column, or no such part of it.
    """
    name = str(name)
    if name in row:
        return row[name]
    first, *path = name.split(".")
    if first not in row or not path:
        raise SpecError(
            f"{where} has no column '{name}'; it has {one_line(', '.join(map(str, row)), 200)}"
        )
    found = row[first]
    for place, key in enumerate(path):
        try:
            found = _part(found, key)
        except (KeyError, IndexError, TypeError) as error:
            parent = ".".join([first, *path[:place]])
            has = (
                f"it has {', '.join(map(str, found))}" if isinstance(found, dict) else _kind(found)
            )
            raise SpecError(
                f"{where}, column '{name}': there is no '{key}' in {parent}; {one_line(has, 200)}"
            ) from error
    return found


def _part(value: object, key: str) -> object:
    if isinstance(value, list):
        return value[int(key)] if key.isdecimal() else [_part(part, key) for part in value]
    if not isinstance(value, Mapping):
        raise TypeError(type(value).__name__)
    return value[key]


def text_of(value: object, where: str, name: str) -> str:
    """A value as the text that stands there: a number as written, true and false as JSON has them.

    Args:
        name: the column's.

    Raises:
        SpecError: it is empty or no text.
    """
    cell = f"{where}, column '{name}'"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise SpecError(f"{cell} is empty; fill it, or leave the row out")
    if isinstance(value, int | float | decimal.Decimal | datetime.date | datetime.time):
        return str(value)
    if isinstance(value, dict) and value:
        parts = one_line(", ".join(map(str, value)), 200)
        raise SpecError(
            f"{cell} holds a mapping where a text is wanted; it has {parts}: name one of them, as "
            f"{name}.{one_line(next(iter(value)), 40)}"
        )
    raise SpecError(f"{cell} holds {_kind(value)} where a text is wanted; name another column")


def texts_of(value: object, where: str, name: str) -> tuple[str, ...]:
    """A text, or each of a list of them; see `text_of`.

    Raises:
        SpecError: also where the list has none.
    """
    if not isinstance(value, list):
        return (text_of(value, where, name),)
    if not value:
        raise SpecError(f"{where}, column '{name}' is an empty list; fill it, or leave the row out")
    return tuple(text_of(part, where, f"{name}.{place}") for place, part in enumerate(value))


def _kind(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return "nothing" if value is None else f"a {type(value).__name__}"
