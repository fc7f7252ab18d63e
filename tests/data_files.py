"""Data files without end, most of them damaged: made for `tests.fuzz`."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.spec import ChoiceTask, GenerateTask

ROWS: list[dict[str, Any]] = [
    {"question": "三たす五は？", "answer": "8", "a": "null", "b": "NaN", "n": "02116"},
    {"question": 'Who said "no, thanks"?', "answer": "1,234.5", "a": "A", "b": "B\n;", "n": "NA"},
    {"question": "Größer?", "answer": "-3/4", "a": "true", "b": " x", "n": "1e5"},
]
NESTED: list[dict[str, Any]] = [
    {**row, "answers": {"text": [row["answer"], "7"], "start": [1, 2.50]},
     "choices": [{"text": row["a"], "label": "A"}, {"text": row["b"], "label": "B"}], "right": "B"}
    for row in ROWS
]  # fmt: skip


def _csv(delimiter: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def _tsv() -> bytes:
    lines = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    return "\n".join("\t".join(cell.replace("\n", "") for cell in line) for line in lines).encode()


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(NESTED), file)
    return file.getvalue()


def _zstd(content: bytes) -> bytes:
    file = pa.BufferOutputStream()
    with pa.CompressedOutputStream(file, "zstd") as stream:
        stream.write(content)
    return bytes(file.getvalue())


@cache
def bases() -> dict[str, bytes]:
    """Sound files, by their names."""
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in NESTED).encode()
    return {
        "a.csv": _csv(","),
        "semicolon.csv": _csv(";"),
        "a.tsv": _tsv(),
        "a.json": json.dumps(NESTED, indent=1).encode(),
        "a.jsonl": lines,
        "A.NDJSON": b"\xef\xbb\xbf" + lines,
        "a.parquet": _parquet(),
        "sjis.csv": _csv(",").replace("ö".encode(), b"").replace("ß".encode(), b"").decode().encode(
            "cp932"
        ),
        "utf16.csv": _csv(",").decode().encode("utf-16"),
    }  # fmt: skip


TASKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "number": lambda data: GenerateTask.model_validate({"type": "generate", "data": data}),
    "exact": lambda data: GenerateTask.model_validate(
        {"type": "generate", "data": data, "scorer": "exact", "answer": "answers.text"}
    ),
    "options": lambda data: ChoiceTask.model_validate(
        {"type": "choice", "data": data, "options": ["{a}", "{b}"], "answer": "a"}
    ),
    "labels": lambda data: ChoiceTask.model_validate(
        {"type": "choice", "data": data, "options": "choices.text", "labels": "choices.label",
         "answer": "right", "prompt": "{question} {choices.1.text}"}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DataFile:
    """A file, how the spec says it is to be read, and the task that asks for it."""

    name: str
    content: bytes = field(repr=False)
    task: str
    source: dict[str, Any]


PIECES = st.sampled_from(
    [
        *(b'"', b'""', b",", b"\t", b";", b"\n", b"\r", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff"),
        *(b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"\\u0000", b"null", b"NaN", b"true"),
        *(b"1e999", b"-0", b"1.10", b"9" * 5000, b"[" * 5000, b'{"a":' * 3000, b"x" * 200_000),
        *("\u2028\x85".encode(), "１，２".encode(), b"\xed\xa0\x80", b'"answer":1,', b"Infinity"),
        *(b"PAR1", b"\x1f\x8b\x08", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"sep=;\n"),
    ]
)  # fmt: skip
SOURCES = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(
            ["utf-8", "cp932", "euc_jp", "utf-16", "latin-1", "ascii", "utf-7", "idna", "punycode",
             "unicode_escape", "undefined", "utf-8-sig", "hz", "iso2022_jp"]),
        "delimiter": st.sampled_from([",", ";", "\t", "|", '"', "\n", "\r", " ", "あ", "\0", "q"]),
        "columns": st.sampled_from([tuple(ROWS[0]), ("question",), ("a", "a"), ()]),
        "split": st.sampled_from(["train", "train[:2]", "train[50%:]", "train[-1:]", "train[9:]",
                                  "test", "train[:", "train[:2]+train[2:]", "", "all", "\x1b"]),
    },
)  # fmt: skip


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".ZST": _zstd,
}


@st.composite
def damaged(draw: st.DrawFn, sound: bytes, places: int) -> bytes:
    """The bytes, changed in so many places at most."""
    content = bytearray(sound)
    for _ in range(draw(st.integers(0, places))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 9)))
        how = draw(st.sampled_from(["bytes", "piece", "cut", "twice", "flip"]))
        if how == "flip" and content:
            content[min(start, len(content) - 1)] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del content[start:]
        elif how == "twice":
            content[start:start] = content[start : start + draw(st.integers(1, 400))]
        else:
            content[start:end] = draw(PIECES if how == "piece" else st.binary(max_size=4))
    return bytes(content)


@st.composite
def data_files(draw: st.DrawFn) -> DataFile:
    """Some base, mostly damaged, packed or not, read as some spec says."""
    name, task = draw(st.sampled_from(list(bases()))), draw(st.sampled_from(list(TASKS)))
    content = draw(damaged(bases()[name], 3))
    if not draw(st.integers(0, 19)):
        name = draw(st.sampled_from(list(bases())))
    if not draw(st.integers(0, 2)):
        ending = draw(st.sampled_from(list(PACKERS)))
        name, content = name + ending, draw(damaged(PACKERS[ending](content), 1))
    source = {} if draw(st.integers(0, 3)) else draw(SOURCES)
    return DataFile(name, content, task, source)


_FOLDER = tempfile.TemporaryDirectory()


def check_data_file(given: DataFile) -> UsageError | None:
    """Reads it as a study does at its creation; the refusal, where there is one."""
    path = Path(_FOLDER.name) / given.name
    path.write_bytes(given.content)
    try:
        source = {**given.source, "path": str(path)}
        task = TASKS[given.task]({"search": source})
    except ValueError:  # no spec
        return None
    found = runners({"t": task})
    try:
        check_data(found)
    except UsageError as error:
        return error
    for problem in found["t"].problems("search"):
        assert all(problem.references) and all(problem.options), problem
        "".join([problem.text, *problem.references, *problem.options]).encode()
    fingerprint_data(found)
    return None
