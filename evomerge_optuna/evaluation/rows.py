"""Rows of a data set, each with its place: of a local file, the hub or the zoo."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.encodings import COMPRESSIONS
from evomerge_optuna.evaluation.problem import Row
from evomerge_optuna.evaluation.tables import ENDINGS, kind_of, read_table
from evomerge_optuna.explain import first_line, one_line
from evomerge_optuna.spec import DataSource
from evomerge_optuna.zoo.data import ZOO_DATA, ZOO_SPLITS

if TYPE_CHECKING:
    from datasets import Dataset


def load_rows(source: DataSource, where: str) -> list[tuple[str, Row]]:
    """All rows of a split, each after its place as errors name it; images are not decoded.

    Files of text, and folders of them, are read here, every cell as it stands there; what the hub
    has, and folders of images, by `datasets`.

    Args:
        where: the source's place in the spec, named in errors.

    Raises:
        SpecError: they cannot be had, or there are none.
    """
    if source.path in ZOO_DATA:
        rows = _numbered(_of_the_zoo(source, where), source, where)
    elif (files := _files(source, where)) is not None:
        rows = _of_files(files, source, where)
    else:
        rows = _numbered(_undecoded(_load(source, where)), source, where)
    if not rows:
        raise SpecError(f"{where}: {source.path} [{source.split}] has no rows")
    return rows


def _numbered(rows: Iterable[Row], source: DataSource, where: str) -> list[tuple[str, Row]]:
    return [(f"{where}: {source.path}, row {number}", row) for number, row in enumerate(rows, 1)]


def _of_the_zoo(source: DataSource, where: str) -> Sequence[Row]:
    if source.split not in ZOO_SPLITS:
        raise SpecError(f"{where}: {source.path} has the splits {', '.join(ZOO_SPLITS)}")
    return ZOO_DATA[source.path](source.split)


def _files(source: DataSource, where: str) -> dict[str, list[Path]] | None:
    """The local files of each split; None where it is `datasets` that reads them."""
    path = Path(source.path)
    found = os.path.exists(path)  # pathlib raises for a name that is too long
    if kind_of(path) and (path.is_absolute() or found):
        if not found:
            raise SpecError(f"{where}: there is no file {path}; correct the path")
        if not path.is_file():  # to read from a pipe might take forever
            raise SpecError(f"{where}: {path} is no file; correct the path")
        return {"train": [path]}
    if not os.path.isdir(path):
        return None
    import datasets

    with _refused(source, where):
        builder = datasets.load_dataset_builder(source.path, source.name)
    if builder.name not in ("csv", "json", "parquet"):
        return None
    splits = builder.config.data_files or {}
    return {str(split): [Path(file) for file in files] for split, files in splits.items()}


def _of_files(
    files: dict[str, list[Path]], source: DataSource, where: str
) -> list[tuple[str, Row]]:
    """The rows of the split, whose places have their numbers in their files, from 1."""
    whole = [name for name in files if name == source.split] or list(files)
    splits: dict[str, list[tuple[str, Row]]] = {}
    for name in whole:
        rows = splits.setdefault(name, [])
        for file in files[name]:
            place = f"{where}: {file}"
            try:
                table = read_table(file, source)
            except OSError as error:
                raise SpecError(f"{place} cannot be read: {error.strerror or error}") from error
            except ValueError as error:
                raise SpecError(f"{place}: {one_line(error)}") from error
            rows += [(f"{place}, row {number}", row) for number, row in enumerate(table, 1)]
    return splits.get(source.split) or _part(splits, source, where)


def _part(
    splits: dict[str, list[tuple[str, Row]]], source: DataSource, where: str
) -> list[tuple[str, Row]]:
    """What a split as `train[:150]` is of these, in the terms of `datasets`."""
    import datasets

    counts = {name: len(rows) for name, rows in splits.items()}
    try:
        parts = datasets.ReadInstruction.from_spec(source.split).to_absolute(counts)
    except Exception as error:  # asserts, too
        raise SpecError(
            f"{where}: {source.path}: split {source.split[:40]!r} cannot be had; it has "
            f"{', '.join(splits)}, or a part as {next(iter(splits), 'train')}[:150]: "
            f"{one_line(error, 200)}"
        ) from error
    return [row for part in parts for row in splits[part.splitname][part.from_ : part.to]]


def _undecoded(data: "Dataset") -> "Dataset":
    """The data with the files of its images as they are stored."""
    import datasets

    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    return data


def _load(source: DataSource, where: str) -> "Dataset":
    if os.path.isfile(source.path):
        raise SpecError(
            f"{where}: {source.path} has no ending of a file of data; name it as it is: "
            f"{', '.join(ENDINGS)}, or one of these and {', '.join(COMPRESSIONS)}"
        )
    for key in ("columns", "encoding", "delimiter"):
        if getattr(source, key) is not None:
            raise SpecError(
                f"{where}.{key}: is for local files of text, and '{source.path}' is none; leave "
                "it out"
            )
    import datasets

    with _refused(source, where):
        return datasets.load_dataset(source.path, source.name, split=source.split)


@contextmanager
def _refused(source: DataSource, where: str) -> Iterator[None]:
    """Says why `datasets` gives nothing."""
    import datasets

    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:
        raise SpecError(
            f"{where}: {source.path} [{source.split}] cannot be read: {_cause(error)}"
            if os.path.exists(source.path)
            else f"{where}: '{source.path}' is not a local file and the hub does not give it: "
            f"{_cause(error)}"
        ) from error


def _cause(error: BaseException) -> str:
    """What went wrong, where `datasets` says no more than that something did."""
    import datasets

    while isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__:
        error = error.__cause__
    return one_line(first_line(error))
