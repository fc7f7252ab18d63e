"""Rows of a data set, each with its place: of a local file, the hub or the zoo."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.encodings import COMPRESSIONS
from evomerge_optuna.evaluation.tables import ENDINGS, Row, kind_of, read_table
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.pictures import load_pictures
from evomerge_optuna.models.problems import load_problems
from evomerge_optuna.spec import DataSource

_ZOO: dict[str, Callable[[], Any]] = {
    "zoo:problems": load_problems,
    "zoo:pictures": load_pictures,
}


def load_rows(source: DataSource, where: str) -> list[tuple[str, Row]]:
    """All rows of a split, each after its place as errors name it; images are not decoded.

    Args:
        where: the source's place in the spec, named in errors.

    Raises:
        SpecError: they cannot be had, or there are none.
    """
    path = Path(source.path)
    found = os.path.exists(path)  # pathlib raises for a name that is too long
    if source.path not in _ZOO and kind_of(path) and (path.is_absolute() or found):
        numbered = _of_file(path, source, where)
    else:
        numbered = list(enumerate(_undecoded(_load(source, where, found)), 1))
    if not numbered:
        raise SpecError(f"{where}: {source.path} [{source.split}] has no rows")
    return [(f"{where}: {source.path}, row {number}", row) for number, row in numbered]


def _of_file(path: Path, source: DataSource, where: str) -> list[tuple[int, Row]]:
    """The rows of a local file that are in the split, with their numbers in the file, from 1."""
    if not path.exists():
        raise SpecError(f"{where}: there is no file {path}; correct the path")
    if not path.is_file():  # to read from a pipe might take forever
        raise SpecError(f"{where}: {path} is no file; correct the path")
    try:
        rows = read_table(path, source)
        return [(place + 1, rows[place]) for place in _places(source.split, len(rows))]
    except OSError as error:
        raise SpecError(f"{where}: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SpecError(f"{where}: {path}: {one_line(error)}") from error


def _places(split: str, count: int) -> Sequence[int]:
    """Which of so many rows are in a split as `train[:150]`, in the terms of `datasets`."""
    if split == "train":
        return range(count)
    import datasets

    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({"train": count})
    except Exception as error:  # asserts, too
        raise ValueError(
            f"split {split[:40]!r} cannot be had of a file, which has the split train alone, or a "
            f"part as train[:150]: {error}"
        ) from error
    return [place for part in parts for place in range(count)[part.from_ : part.to]]


def _undecoded(data: Any) -> Any:
    """The data with the files of its images as they are stored."""
    import datasets

    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    return data


def _load(source: DataSource, where: str, found: bool) -> Any:
    if source.path in _ZOO:
        data = _ZOO[source.path]()
        if source.split not in data:
            raise SpecError(f"{where}: {source.path} has the splits {', '.join(data)}")
        return data[source.split]
    if os.path.isfile(source.path):
        raise SpecError(
            f"{where}: {source.path} has no ending of a file of data; name it as it is: "
            f"{', '.join(ENDINGS)}, or one of these and {', '.join(COMPRESSIONS)}"
        )
    for key in ("columns", "encoding", "delimiter"):
        if getattr(source, key) is not None:
            raise SpecError(
                f"{where}.{key}: is for local files, and '{source.path}' is none; leave it out"
            )
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(source.path, source.name, split=source.split)
    except Exception as error:
        raise SpecError(
            f"{where}: '{source.path}' is not a local file and the hub does not give it: "
            f"{_cause(error)}"
            if not found
            else f"{where}: {source.path} [{source.split}] cannot be read: {_cause(error)}"
        ) from error


def _cause(error: BaseException) -> str:
    """What went wrong, where `datasets` says no more than that something did."""
    import datasets

    while isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return one_line(lines[0] if lines else type(error).__name__)
