"""Local files: every cell is the text that stands there, or the file is refused by its place.

Covers evaluation.problem and evaluation.rows, too.
"""

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.rows import load_rows
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.spec import DataSource, GenerateTask

GZIP = gzip.compress(b"q,a\nx,1\n", mtime=0)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def read(name: str, content: str | bytes, **source: Any) -> list[dict[str, Any]]:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        found = load_rows(DataSource(path=str(file), **source), "data")
        return [row for _, row in found]

    return read


Rows = Callable[..., list[dict[str, Any]]]

LITERAL = [
    *("null", "NaN", "NA", "None", "nan", "N/A", "#N/A", "true", "False", "inf", "2024-05-03"),
    *("02116", "1.10", "1e5", "-0", "0x1F", "12:30", "1,234", " x", "=1+1", "'quoted'"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.tsv", "a.jsonl", "a.NDJSON", "a.json"])
def test_every_cell_is_the_text_that_stands_there(rows: Rows, name: str) -> None:
    table = [{"q": f"q{n}", "a": cell} for n, cell in enumerate(LITERAL)]
    if name.lower().endswith("sv"):
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, ["q", "a"], delimiter="," if "c" in name.lower() else "\t")
        writer.writeheader()
        writer.writerows(table)
        content = file.getvalue()
    elif name == "a.json":
        content = json.dumps(table)
    else:
        content = "\n".join(map(json.dumps, table))
    assert rows(name, content) == table


# An escape before a dollar is how ISO-2022-JP writes Japanese in ASCII bytes; it is refused.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1b"), min_size=1)


@given(st.lists(st.tuples(CELLS, CELLS).filter(lambda row: all(map(str.strip, row))), min_size=1))
def test_what_the_csv_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "back.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("q", "a"), *table])
    found = load_rows(DataSource(path=str(file)), "data")
    assert [(row["q"], row["a"]) for _, row in found] == table


@pytest.mark.parametrize(
    ("lines", "cells"),
    [
        (['say "hi"\t1', '"x"\t2'], ['say "hi"', '"x"']),  # who writes CSV would quote the first
        (['"say ""hi"""\t1', "y\t2"], ['say "hi"', "y"]),
        (['"half\t1', "y\t2"], ['"half', "y"]),
        (["plain\t1", "y\t2"], ["plain", "y"]),
    ],
)
def test_quotes_of_a_tsv(tmp_path: Path, lines: list[str], cells: list[str]) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("\n".join(["q\ta", *lines]), encoding="utf-8")
    assert [row["q"] for _, row in load_rows(DataSource(path=str(file)), "data")] == cells


@given(st.lists(st.dictionaries(st.sampled_from("abc"), CELLS, min_size=1), min_size=1))
def test_what_json_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, str]]
) -> None:
    lines, whole = (tmp_path_factory.getbasetemp() / name for name in ("back.jsonl", "back.json"))
    lines.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in table), "utf-8")
    whole.write_text(json.dumps(table, indent=2), "utf-8")
    keys = {key for row in table for key in row}
    for file in (lines, whole):
        found = [row for _, row in load_rows(DataSource(path=str(file)), "data")]
        assert found == [{key: row.get(key) for key in keys} for row in table]


def task(path: Path, **parts: Any) -> GenerateTask:
    content = {"type": "generate", "data": {"search": {"path": str(path)}}, "scorer": "exact"}
    return GenerateTask.model_validate({**content, **parts})


def problems(found: GenerateTask) -> list[Problem]:
    return runners({"t": found})["t"].problems("search")


@pytest.mark.parametrize(
    ("written", "text"),
    [("1.10", "1.10"), ("1e5", "1e5"), ("8", "8"), ("-0", "-0"), ("0.1e-2", "0.1e-2"),
     ("12345678901234567890123", "12345678901234567890123"), ("true", "true"), ("false", "false"),
     ('"2024-05-03"', "2024-05-03"), ('"true"', "true"), ("1E999", "1E999")],
)  # fmt: skip
def test_a_number_of_a_json_file_is_as_it_is_written(
    tmp_path: Path, written: str, text: str
) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"question": {written}, "answer": {written}}}')
    assert problems(task(tmp_path / "a.jsonl")) == [Problem(text, text)]


def test_a_number_of_a_json_file_is_a_number_for_users_code(rows: Rows) -> None:
    row = rows("a.jsonl", '{"a": 1.10, "b": 8, "c": {"d": [1e2]}, "e": true}')[0]
    assert json.dumps(row) == '{"a": 1.1, "b": 8, "c": {"d": [100.0]}, "e": true}'


def test_values_of_parquet(tmp_path: Path) -> None:
    values = [datetime.date(2024, 5, 3), datetime.time(12, 30), 8, 0.5, True]
    for number, value in enumerate(values):
        table = pa.Table.from_pylist([{"question": "q", "answer": value}])
        pq.write_table(table, tmp_path / f"{number}.parquet")
    found = [problems(task(tmp_path / f"{n}.parquet"))[0].reference for n in range(len(values))]
    assert found == ["2024-05-03", "12:30:00", "8", "0.5", "true"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"q": "a\u2028b", "a": "\x85"}\r\n\r\n{"q": "c", "a": "d"}'),
        ("a.jsonl", '\ufeff{"q": "a\u2028b", "a": "\x85"}{"q": "c", "a": "d"}'),
        ("a.json", '{"q": "a\u2028b",\n "a": "\x85"}\n{"q": "c",\n "a": "d"}'),
        ("a.csv", "\ufeffq,a\r\na\u2028b,\x85\r\n\r\nc,d\r\n"),
        ("a.csv", "q,a,\na\u2028b,x\x85,\nc,d,\n".replace("x", "")),
        ("a.csv", "q,a\ra\u2028b,\x85\rc,d"),
    ],
)
def test_what_parts_rows(rows: Rows, name: str, content: str) -> None:
    found = rows(name, content)
    kept = "\x85" if name != "a.csv" else None  # white space alone is an empty cell
    assert found == [{"q": "a\u2028b", "a": kept}, {"q": "c", "a": "d"}]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp932", "りんごが3個あります。2個足すと？"),
        ("euc_jp", "りんごが3個あります。2個足すと？"),
        ("iso2022_jp", "りんごが3個あります"),
        ("utf-16", "Wie groß ist München?"),
        ("utf-16-le", "Wie groß ist München?"),
        ("utf-16-be", "りんごはいくつ"),
        ("cp1252", "¿Cuántas manzanas compró el niño?"),
        ("cp1251", "Сколько яблок у Анны?"),
        ("gb18030", "小明有三个苹果，又买了两个。一共有几个？"),
        ("cp949", "사과가 세 개 있습니다. 두 개를 더하면?"),
    ],
)
def test_a_wrong_encoding_is_told_with_the_cure(rows: Rows, encoding: str, text: str) -> None:
    for name, content in (("a.csv", f"q,a\n{text},5\n"), ("b.jsonl", f'{{"q": "{text}"}}')):
        written = content.encode(encoding)
        with pytest.raises(SpecError, match=f"write encoding: {encoding}$") as error:
            rows(name, written)
        assert "\n" not in str(error.value)
        assert rows(name, written, encoding=encoding)[0]["q"] == text


@pytest.mark.parametrize(
    ("name", "content", "source", "message"),
    [
        ("a.csv", "q,a\nx,1\ny,2,3\n", {}, "row 2 has 3 fields, the table 2 columns; put quot"),
        ("a.csv", "q,a\nx,1\ny\n", {}, "row 2 has 1 field, the table 2 columns; fill it up"),
        ("a.csv", "q;a\nx;1\n", {}, "its only column is 'q;a'; write delimiter: \";\""),
        ("a.csv", "q;a\nx, y;1\n", {}, "row 1 has 2 fields, the table 1 column; write delim"),
        ("a.csv", "q\ta\nx\t1\n", {}, 'write delimiter: "\\t"'),
        ("a.tsv", "q,a\nx,1\n", {}, 'write delimiter: ","'),
        ("a.csv", "x;1\n", {"columns": ("q", "a")}, 'write delimiter: ";"'),
        ("a.csv", 'q,a\n"x,1\ny,2\n', {}, "unexpected end of data; a quote at the beginning"),
        ("a.csv", 'q,a\n"x" y,2\n', {}, "line 2: ',' expected after '\"'"),
        ("a.csv", "q,a,q\n1,2,3\n", {}, "two columns are called 'q'; rename one"),
        ("a.csv", "q,a\n\0,1\n", {}, "it holds NUL characters"),
        ("a.csv", "", {}, "has no rows"),
        ("a.jsonl", '{"q": 1}\n{"q": ', {}, "line 2, column 7: Expecting value in its JSON"),
        ("a.jsonl", '{"q": 1}\n"x"', {}, "row 2 is no object {...}"),
        ("a.json", "[1, 2]", {}, "row 1 is no object {...}"),
        ("a.json", '{"q": 1, "q": 2}', {}, "line 1: an object has the key 'q' twice"),
        ("a.json", '{"q": "\\ud83d"}', {}, "row 1 holds half of a character"),
        ("a.json", "[" * 100_000, {}, "is nested too deep"),
        ("a.json", "9" * 5000, {}, "line 1: Exceeds the limit"),
        ("a.jsonl", '{"q": 1}', {"delimiter": ";"}, "delimiter: is for CSV and TSV files"),
        ("a.parquet", "q,a\n", {}, "it is no sound Parquet file: "),
        ("a.parquet", "q,a\n", {"encoding": "cp932"}, "encoding: is for files of text"),
        ("a.csv.gz", "q,a\n", {}, "it is no sound .gz file: Not a gzipped file"),
        ("a.csv.gz", GZIP[:-4], {}, "it is no sound .gz file: Compressed"),
        ("a.csv.zst", "q,a\n", {}, "it is no sound .zst file: "),
        ("a.csv.xz", "q,a\n", {}, "it is no sound .xz file: "),
        ("a.csv.bz2", "q,a\n", {}, "it is no sound .bz2 file: "),
        ("a.csv", GZIP, {}, "it is compressed by gzip; name it .gz"),
        ("a.csv", b"PK\x03\x04\x14\x00\x00\x00\xff", {}, "a zip archive or an Excel file"),
        ("a.txt", "q,a\n", {}, "has no ending of a file of data; name it as it is: .csv, .tsv"),
        ("a.csv", "q,a\nx,1\n", {"split": "test"}, "split 'test' cannot be had; it has train, or"),
        ("a.csv", "q,a\nx,1\n", {"split": "train[:"}, "split 'train[:' cannot be had"),
        ("a.csv", "q,a\nx,1\n", {"split": "train[5:]"}, "[train[5:]] has no rows"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_in_one_line(
    rows: Rows, name: str, content: Any, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        rows(name, content, **source)
    assert str(error.value).startswith("data: ") and message in str(error.value)
    assert str(error.value).isprintable()


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(SpecError, match="is no file; correct the path"):
        load_rows(DataSource(path=str(tmp_path / "a.csv")), "data")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("q,a\n")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match=r"a\.csv cannot be read: Permission denied$"):
        load_rows(DataSource(path=str(tmp_path / "a.csv")), "data")


def test_a_folder_of_files_is_read_as_its_files_are(tmp_path: Path) -> None:
    (tmp_path / "train-1.csv").write_text("q,a\nx,02116\n")
    (tmp_path / "train-2.csv").write_text("q,a\ny,NA\nz,null\n")
    (tmp_path / "test.csv").write_text("q,a\nw,2024-05-03\n")

    def answers(split: str) -> list[Any]:
        source = DataSource(path=str(tmp_path), split=split)
        return [row["a"] for _, row in load_rows(source, "data")]

    assert answers("train") == ["02116", "NA", "null"]
    assert answers("test") == ["2024-05-03"]
    assert answers("train[1:]+test") == ["NA", "null", "2024-05-03"]
    place, _ = load_rows(DataSource(path=str(tmp_path), split="train[-1:]"), "data")[0]
    assert place == f"data: {tmp_path / 'train-2.csv'}, row 2"
    with pytest.raises(SpecError, match="split 'dev' cannot be had; it has train, test"):
        answers("dev")


def test_what_is_broken_in_a_folder_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"q": 1}\n{"q": \n')
    with pytest.raises(SpecError, match=r"train\.jsonl: line 3, column 1: Expecting value"):
        load_rows(DataSource(path=str(tmp_path)), "data")


def test_what_datasets_cannot_read_is_told_with_its_own_cause(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (2, 2)).save(tmp_path / "1.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", ')
    with pytest.raises(SpecError) as error:
        load_rows(DataSource(path=str(tmp_path)), "data")
    assert "An error occurred" not in str(error.value) and "JSON" in str(error.value)


@pytest.mark.parametrize("split", ["train[:3]", "train[-2:]", "train[50%:]", "train[:1]+train[3:]"])
def test_a_part_of_a_file_is_what_datasets_takes(rows: Rows, split: str) -> None:
    from datasets import Dataset, ReadInstruction

    parts = ReadInstruction.from_spec(split).to_absolute({"train": 5})
    wanted = [n for part in parts for n in range(part.from_, part.to)]
    table = Dataset.from_dict({"n": [str(n) for n in range(5)]}).to_list()
    content = "n,m\n" + "".join(f"{n},x\n" for n in range(5))
    assert [{"n": row["n"]} for row in rows("a.csv", content, split=split)] == [
        table[n] for n in wanted
    ]


def test_a_long_cell(rows: Rows) -> None:
    assert rows("a.csv", "q,a\n" + "x" * 300_000 + ",1\n")[0]["q"] == "x" * 300_000


@pytest.mark.parametrize(
    ("line", "parts", "message"),
    [
        ('{"question": "", "answer": "x"}', {"prompt": "Q: {question}"}, None),
        ('{"question": null, "answer": "x"}', {}, "row 2, column 'question' is empty; fill it"),
        ('{"answer": "x"}', {}, "row 2, column 'question' is empty; fill it"),
        ('{"question": ["a"], "answer": "x"}', {}, "'question' holds a list where a text"),
        ('{"question": {"a": 1}, "answer": "x"}', {}, "holds a mapping where a text is"),
        ('{"question": "q", "answer": {"text": ["x"]}}', {}, "name one of them, as answer.text"),
        ('{"question": "q", "answer": []}', {}, "row 2, column 'answer' is an empty list"),
        ('{"question": "q", "answer": [["x"]]}', {}, "row 2, column 'answer.0' holds a list"),
        ('{"question": "q", "answer": ["x", null]}', {}, "row 2, column 'answer.1' is empty"),
        ('{"question": "q", "answer": "x"}', {"answer": "answer.text"}, "there is no 'text'"),
        ('{"question": "q", "answer": "x"}', {"answer": "b.c"}, "has no column 'b.c'; it has"),
    ],
)  # fmt: skip
def test_a_cell_that_is_no_text_is_named(
    tmp_path: Path, line: str, parts: dict[str, Any], message: str | None
) -> None:
    first = '{"question": "p", "answer": {"text": "x"}}' if "answer.text" in str(parts) else ""
    first = first or '{"question": "p", "answer": "x", "b": {"c": "x"}}'
    (tmp_path / "a.jsonl").write_text(f"{first}\n{line}\n")
    if message is None:
        assert len(problems(task(tmp_path / "a.jsonl", **parts))) == 2
        return
    with pytest.raises(SpecError) as error:
        problems(task(tmp_path / "a.jsonl", **parts))
    assert message in str(error.value) or "row 2, column 'b.c'" in str(error.value)


def test_columns_by_path(tmp_path: Path) -> None:
    row = {
        "a.b": "literal",
        "a": {"b": "inside"},
        "turns": [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Ho"}],
        "answers": {"text": ["4", "four"], "answer_start": [7, 31]},
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    parts = {"prompt": "{a.b} {turns.0.text} {turns.1.role}", "answer": "answers.text"}
    assert problems(task(tmp_path / "a.jsonl", **parts)) == [
        Problem("literal Hi assistant", "4", others=("four",))
    ]
    found = problems(task(tmp_path / "a.jsonl", prompt="{a.b}", answer="turns.text"))
    assert found[0].references == ("Hi", "Ho")
