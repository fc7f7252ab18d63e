"""What the columns of a data set hold, and the paths into those that hold more than a text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evomerge_optuna.evaluation.problem import Row

_SAMPLE = 2000  # rows that are looked at
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


@dataclass(frozen=True)
class Leaf:
    """A column, or a path into one, by what its cells are.

    Attributes:
        path: as a spec names it.
        kind: "text", of numbers too; "list" of texts; "picture".
        length: of the mean text, in characters.
        is_filled: no cell is empty.
    """

    path: str
    kind: str
    length: float
    is_filled: bool

    @property
    def name(self) -> str:
        """The column's name without what people write differently, as `answerkey` of Answer_Key."""
        return spelt(self.path)


def spelt(name: str) -> str:
    """Letters and digits alone, small."""
    return "".join(c for c in name.casefold() if c.isalnum())


def leaves(rows: Sequence[Row]) -> list[Leaf]:
    """All columns and paths of the rows, in their order."""
    sample = rows[:_SAMPLE]
    found: list[Leaf] = []
    for column in dict.fromkeys(key for row in sample for key in row):
        found += _leaves(column, [row.get(column) for row in sample])
    return found


def _leaves(path: str, cells: Sequence[object]) -> Iterator[Leaf]:
    given = [cell for cell in cells if cell is not None and cell != ""]
    is_filled = bool(given) and len(given) == len(cells)
    if not given:
        return
    if all(_is_picture(cell) for cell in given):
        yield Leaf(path, "picture", 0, is_filled)
    elif all(isinstance(cell, Mapping) for cell in given):
        for key in dict.fromkeys(key for cell in given for key in _keys(cell)):
            yield from _leaves(f"{path}.{key}", [_at(cell, key) for cell in given])
    elif all(isinstance(cell, list) for cell in given):
        yield from _of_lists(path, [cell for cell in given if isinstance(cell, list)], is_filled)
    elif all(isinstance(cell, str | int | float) for cell in given):
        lengths = [len(str(cell)) for cell in given]
        yield Leaf(path, "text", sum(lengths) / len(lengths), is_filled)


def _of_lists(path: str, cells: Sequence[list[object]], is_filled: bool) -> Iterator[Leaf]:
    parts = [part for cell in cells for part in cell]
    if parts and all(isinstance(part, Mapping) for part in parts):
        for key in dict.fromkeys(key for part in parts for key in _keys(part)):
            yield from _of_lists(
                f"{path}.{key}", [[_at(p, key) for p in c] for c in cells], is_filled
            )
        return
    if parts and all(isinstance(part, str | int | float) for part in parts):
        lengths = [len(str(part)) for part in parts]
        yield Leaf(path, "list", sum(lengths) / len(lengths), is_filled and all(cells))


def _keys(cell: object) -> list[str]:
    return list(cell) if isinstance(cell, Mapping) else []


def _at(cell: object, key: str) -> object:
    return cell.get(key) if isinstance(cell, Mapping) else None


def _is_picture(cell: object) -> bool:
    """A picture as `datasets` has it undecoded, or the path of one."""
    if isinstance(cell, Mapping):
        return {*cell} == {"bytes", "path"}
    return isinstance(cell, str) and cell.lower().endswith(_PICTURES)
