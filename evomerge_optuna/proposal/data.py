"""The data as a user names it: its rows, and its splits as a spec has them."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError, UsageError
from evomerge_optuna.evaluation.problem import Row
from evomerge_optuna.evaluation.rows import load_rows
from evomerge_optuna.evaluation.tables import kind_of
from evomerge_optuna.proposal.names import seen_from
from evomerge_optuna.proposal.splits import divided, of_splits, part_of, split_named
from evomerge_optuna.spec import DataSource
from evomerge_optuna.zoo.data import ZOO_DATA, ZOO_SPLITS

_OF_THE_HUB = ("train", "validation", "test")
_HINT = re.compile(r"write (delimiter|encoding): (\"(?:\\.|[^\"\\])+\"|[\w-]+)")
_MOST_HINTS = 2  # an encoding, then a delimiter


@dataclass(frozen=True)
class Data:
    """What was read.

    Attributes:
        name: as the user gave it.
        rows: of all splits, those of the search first.
        splits: the key `data` of a task.
        counts: rows of each split of the spec.
    """

    name: str
    rows: tuple[Row, ...]
    splits: str | dict[str, dict[str, Any]]
    counts: dict[str, int]


def read_data(name: str, folder: Path) -> Data:
    """Reads a data set, and divides its rows.

    Args:
        name: a file, a folder, a hub id, or one of the zoo.
        folder: that of the spec, to which its paths are relative.

    Raises:
        SpecError: it cannot be read.
        UsageError: it has too few rows.
    """
    if name in ZOO_DATA:
        rows = tuple(ZOO_DATA[name]("search"))
        return Data(name, rows, name, {split: len(rows) for split in ZOO_SPLITS})
    files = _files_of_splits(Path(os.path.expanduser(name)))
    if files is not None:
        return _of_files(name, files, folder)
    if os.path.exists(os.path.expanduser(name)):
        return _of_one(_only_file(name), folder)
    if kind_of(Path(name)) or name.startswith(("./", "../", "~", "/")):
        raise UsageError(f"data: there is no file {name}; correct the path")
    return _of_hub(name)


def _of_one(name: str, folder: Path) -> Data:
    rows, how = _read(os.path.expanduser(name))
    parts = divided(len(rows))
    path = {"path": seen_from(folder, name), **how}
    splits = {split: {**path, "split": part} for split, part in parts.items()}
    chosen = _counted(parts, len(rows))
    return Data(name, rows[: sum(chosen.values())], splits, chosen)


def _only_file(name: str) -> str:
    """The only file of data in a folder; the name itself of anything else."""
    files = _data_files(Path(os.path.expanduser(name)))
    return os.path.join(name, files[0].name) if len(files) == 1 else name


def _data_files(folder: Path) -> list[Path]:
    """Files of rows in a folder, but for what describes other files there."""
    if not folder.is_dir():
        return []
    found = sorted(file for file in folder.iterdir() if file.is_file() and kind_of(file))
    return [file for file in found if not file.name.startswith(("metadata", "config"))]


def _of_files(name: str, files: dict[str, Path], folder: Path) -> Data:
    """A file for each split, of which all rows are used up to the most that a split needs."""
    read = {split: _read(str(file)) for split, file in files.items()}
    found = of_splits({split: len(rows) for split, (rows, _) in read.items()})
    splits: dict[str, dict[str, Any]] = {}
    for split, (_, first, last, count) in found.items():
        part = part_of("train", first, last, count)
        path = {"path": seen_from(folder, str(files[split])), **read[split][1]}
        splits[split] = path | ({} if part == "train" else {"split": part})
    rows = tuple(row for split, part in found.items() for row in read[split][0][: part[2]])
    return Data(name, rows, splits, {split: last for split, (_, _, last, _) in found.items()})


def _of_hub(name: str) -> Data:
    read: dict[str, tuple[Row, ...]] = {}
    failed: SpecError | None = None
    for split in _OF_THE_HUB:
        try:
            read[split] = _rows(DataSource(path=name, split=split))
        except SpecError as error:
            failed = failed or error
    if not read:
        assert failed is not None
        raise failed
    found = of_splits({split: len(rows) for split, rows in read.items()})
    if "search" not in found or len(found) == 1:
        (own, rows), *_ = read.items()
        parts = {s: p.replace("train", own, 1) for s, p in divided(len(rows)).items()}
        splits = {split: {"path": name, "split": part} for split, part in parts.items()}
        chosen = _counted(divided(len(rows)), len(rows))
        return Data(name, rows[: sum(chosen.values())], splits, chosen)
    splits = {s: {"path": name, "split": part_of(*part)} for s, part in found.items()}
    rows = tuple(row for own, _, last, _ in found.values() for row in read[own][:last])
    return Data(name, rows, splits, {s: part[2] for s, part in found.items()})


def _counted(parts: dict[str, str], rows: int) -> dict[str, int]:
    """How many rows each of these parts of the one split has."""
    found = {}
    for split, part in parts.items():
        ends = re.search(r"\[(\d*):(\d*)\]", part)
        first, last = ends.groups() if ends else ("", "")
        found[split] = (int(last) if last else rows) - (int(first) if first else 0)
    return found


def _files_of_splits(path: Path) -> dict[str, Path] | None:
    """The file of each split, where files lie beside each other that are called so.

    Of a folder with a single file of data that is the only one; a file that is called as a split
    stands for itself and those beside it.
    """
    if path.is_dir():
        files = _data_files(path)
    elif path.is_file() and split_named(_stem(path)) == "search":
        files = [file for file in _data_files(path.parent) if kind_of(file) == kind_of(path)]
    else:
        return None
    found = {split: file for file in files if (split := split_named(_stem(file))) is not None}
    if "search" in found and len(found) > 1:
        return found
    if path.is_dir() and len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise UsageError(f"{path} has several files of data ({names}); name one of them")
    return None


def _stem(file: Path) -> str:
    return file.name.partition(".")[0]


def _read(path: str) -> tuple[tuple[Row, ...], dict[str, Any]]:
    """The rows of a file or a folder, and how they are read beside the default."""
    how: dict[str, Any] = {}
    for _ in range(_MOST_HINTS):
        try:
            return _rows(DataSource(path=path, **how)), how
        except SpecError as error:
            hint = _HINT.search(str(error))
            if hint is None or hint[1] in how:
                raise
            how[hint[1]] = json.loads(hint[2]) if hint[2].startswith('"') else hint[2]
    return _rows(DataSource(path=path, **how)), how


def _rows(source: DataSource) -> tuple[Row, ...]:
    return tuple(row for _, row in load_rows(source, "data"))
