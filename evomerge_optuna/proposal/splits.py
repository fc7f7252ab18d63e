"""Which rows are searched on, which choose among the best, and which are kept for the end."""

from collections.abc import Mapping

from evomerge_optuna.errors import UsageError

_FEWEST = 4  # rows of which a search and a test could be made
_SEARCH, _DEV, _TEST = 200, 200, 500  # rows, the most of each: as many as tell models apart
_NAMES = {
    "search": ("search", "train", "training"),
    "dev": ("dev", "validation", "valid", "val", "development"),
    "test": ("test", "testing", "eval"),
}


def split_named(name: str) -> str | None:
    """Which split rows of this name are: of a split of a data set, or of a file."""
    return next((split for split, names in _NAMES.items() if name.lower() in names), None)


def divided(rows: int) -> dict[str, str]:
    """The parts of so many rows of one split, `train`: half to search, the rest to the others.

    Raises:
        UsageError: there are too few.
    """
    if rows < _FEWEST:
        raise UsageError(
            f"the data has {rows} rows, of which no search and test can be made; give more"
        )
    search = min(_SEARCH, rows // 2)
    dev = min(_DEV, rows // 5) if rows >= 10 * _FEWEST else 0
    test = min(rows, search + dev + _TEST)
    found = {"search": _part("train", 0, search, rows)}
    if dev:
        found["dev"] = _part("train", search, search + dev, rows)
    return found | {"test": _part("train", search + dev, test, rows)}


def of_splits(counts: Mapping[str, int]) -> dict[str, tuple[str, int, int, int]]:
    """For each split of a spec the data's own split, and the first row, the last and all of it.

    Args:
        counts: rows of the data's splits, by their names in the data.
    """
    named = {split: name for name in counts if (split := split_named(name)) is not None}
    most = {"search": _SEARCH, "dev": _DEV, "test": _TEST}
    return {
        split: (named[split], 0, min(most[split], counts[named[split]]), counts[named[split]])
        for split in most
        if split in named
    }


def part_of(name: str, first: int, last: int, rows: int) -> str:
    """A part of a split as a spec has it; the whole of it by its name."""
    return _part(name, first, last, rows)


def _part(name: str, first: int, last: int, rows: int) -> str:
    start, stop = (str(first) if first else ""), (str(last) if last < rows else "")
    return name if not start and not stop else f"{name}[{start}:{stop}]"
