"""Rows of local files, in which every cell is the text that stands there."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evomerge_optuna.evaluation.encodings import COMPRESSIONS, decoded
from evomerge_optuna.evaluation.problem import Row
from evomerge_optuna.explain import counted
from evomerge_optuna.spec import DataSource

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LONGEST_CELL = 2**31 - 1  # characters; by default Python's csv reads 131,072


class WrittenFloat(float):
    """A number of a JSON file, which as text is what stands there: 1.10, 1e5."""

    def __new__(cls, text: str) -> "WrittenFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text


def kind_of(path: Path) -> str | None:
    """The ending that says how a file is read, as `.csv` of A.CSV.gz; None where none does."""
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] in COMPRESSIONS:
        del endings[-1]
    return endings[-1] if endings and endings[-1] in _READERS else None


def read_table(path: Path, source: DataSource) -> list[Row]:
    """All rows of a file; a cell with nothing in it is None, as is a key that a JSON row lacks.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such file; says where, and the cure.
    """
    kind = kind_of(path)
    assert kind is not None
    content = path.read_bytes()
    if decompress := COMPRESSIONS.get(path.suffix.lower()):
        content = _decompressed(content, decompress, path.suffix.lower())
    for key in ("columns", "delimiter"):
        if getattr(source, key) is not None and kind not in _DELIMITERS:
            raise ValueError(f"{key}: is for CSV and TSV files; leave it out")
    return _READERS[kind](content, source, kind)


def _decompressed(content: bytes, decompress: Callable[[bytes], bytes], ending: str) -> bytes:
    try:
        return decompress(content)
    except Exception as error:  # each library raises its own
        raise ValueError(f"it is no sound {ending} file: {error}") from error


def _is_quoted(text: str, delimiter: str) -> bool:
    """Does every cell with a quote look as what writes CSV quotes it, as `"a ""b"" c"`?

    Most TSV files know no quoting; those that a data frame was written to do.
    """
    cells = [cell for line in text.splitlines() for cell in line.split(delimiter) if '"' in cell]
    return bool(cells) and all(_QUOTED.fullmatch(cell) for cell in cells)


def _separated(content: bytes, source: DataSource, kind: str) -> list[Row]:
    delimiter = source.delimiter or _DELIMITERS[kind]
    text = decoded(content, source.encoding)
    csv.field_size_limit(_LONGEST_CELL)
    lines_of_text = io.StringIO(text, newline="")
    if kind == ".tsv" and not _is_quoted(text, delimiter):  # a quote is a character there
        reader = csv.reader(lines_of_text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines_of_text, delimiter=delimiter, strict=True)
    try:
        lines = [cells for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num}: {error}; a quote at the beginning of a cell ends at the "
            'next, and "" is a quote in it'
        ) from error
    if not lines:
        return []
    names = list(source.columns) if source.columns is not None else lines.pop(0)
    double = [name for name, count in Counter(names).items() if count > 1 and name]
    if double:
        raise ValueError(f"two columns are called {double[0][:40]!r}; rename one")
    for number, cells in enumerate(lines, 1):
        if len(cells) != len(names):
            raise ValueError(
                f"row {number} has {counted(len(cells), 'field')}, the table "
                f"{counted(len(names), 'column')}{_other(cells, names, source, delimiter)}"
            )
    if source.delimiter is None and len(names) == 1 and (hint := _hint(names[0], delimiter)):
        raise ValueError(f"its only column is {names[0][:40]!r}; {hint}")
    return [
        {
            name: cell if cell.strip() else None
            for name, cell in zip(names, cells, strict=True)
            if name
        }
        for cells in lines
    ]


def _other(cells: list[str], names: list[str], source: DataSource, delimiter: str) -> str:
    """What to do about a row that is too long or too short."""
    if source.delimiter is None and 1 in (len(cells), len(names)):
        hint = _hint((cells if len(cells) == 1 else names)[0], delimiter)
        if hint:
            return f"; {hint}"
    if len(cells) > len(names):
        return f"; put quotes around a cell that has {delimiter!r} in it"
    return "; fill it up"


def _hint(line: str, delimiter: str) -> str | None:
    """What a line that was read as one cell may be parted by."""
    for other in (";", "\t", "|", ","):
        if other != delimiter and other in line:
            return f"write delimiter: {json.dumps(other)} if that parts its cells"
    return None


def _json(content: bytes, source: DataSource, kind: str) -> list[Row]:
    text = decoded(content, source.encoding)
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_float=WrittenFloat, parse_int=_integer
    )
    values, place = [], _blank(text, 0)
    try:
        while place < len(text):
            value, end = decoder.raw_decode(text, place)
            values.append(value)
            place = _blank(text, end)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno}, column {error.colno}: {error.msg} in its JSON"
        ) from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"line {text.count(chr(10), 0, place) + 1}: {error}") from error
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    for number, row in enumerate(values, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no object {{...}} with columns as its keys")
    if r"\ud" in text.lower():
        _refuse_surrogates(values)
    keys = list(dict.fromkeys(key for row in values for key in row))
    return [{key: row.get(key) for key in keys} for row in values]


def _blank(text: str, place: int) -> int:
    """Where the white space of JSON that begins here ends."""
    match = re.compile(r"[ \t\r\n]*").match(text, place)
    assert match is not None
    return match.end()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {double[:40]!r} twice")
    return found


def _integer(text: str) -> int | WrittenFloat:
    return WrittenFloat(text) if text == "-0" else int(text)


def _refuse_surrogates(rows: list[Row]) -> None:
    for number, row in enumerate(rows, 1):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"row {number} holds half of a character, as \\ud83d alone") from error


def _parquet(content: bytes, source: DataSource, kind: str) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    if source.encoding is not None:
        raise ValueError("encoding: is for files of text; leave it out")
    try:
        rows: list[Row] = parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except (Exception, MemoryError) as error:  # of a damaged file, Arrow raises what it likes
        raise ValueError(f"it is no sound Parquet file: {error}") from error
    return rows


_READERS: dict[str, Callable[[bytes, DataSource, str], list[Row]]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
    ".parquet": _parquet,
}
ENDINGS = tuple(_READERS)
