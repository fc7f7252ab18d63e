"""Data of any form is read, and its splits are those of the spec.

Covers evaluation.rows, too.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.errors import SpecError, UsageError
from evomerge_optuna.evaluation.data import check_data
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.proposal.data import Data, read_data
from evomerge_optuna.spec import GenerateTask


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {n} ?", "answer": str(n)} for n in range(first, first + count)]


def csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    head = delimiter.join(rows[0])
    return "\n".join([head, *(delimiter.join(row.values()) for row in rows)])


def jsonl(rows: list[dict[str, str]]) -> str:
    return "\n".join(map(json.dumps, rows))


def counts(found: Data) -> dict[str, int]:
    """How many problems a task of these splits has, which share none."""
    task = GenerateTask.model_validate({"type": "generate", "data": found.splits})
    running = runners({"t": task})
    check_data(running)
    return {split: len(running["t"].problems(split)) for split in running["t"].splits}


def test_one_file(here: Path) -> None:
    (here / "d.csv").write_text(csv(lines(100)))
    found = read_data("d.csv", here)
    assert isinstance(found.splits, dict)
    assert found.splits["search"] == {"path": "./d.csv", "split": "train[:50]"}
    assert counts(found) == found.counts == {"search": 50, "dev": 20, "test": 30}
    assert len(found.rows) == 100


def test_few_rows_have_no_dev(here: Path) -> None:
    (here / "d.jsonl.gz").write_bytes(gzip.compress(jsonl(lines(10)).encode()))
    assert counts(read_data("d.jsonl.gz", here)) == {"search": 5, "test": 5}
    (here / "few.jsonl").write_text(jsonl(lines(2)))
    with pytest.raises(UsageError, match="has 2 rows"):
        read_data("few.jsonl", here)


def test_a_file_for_each_split(here: Path) -> None:
    for number, (split, count) in enumerate({"train": 300, "valid": 7, "test": 9}.items()):
        (here / f"{split}.csv").write_text(csv(lines(count, 1000 * number)))
    wanted = {"search": 200, "dev": 7, "test": 9}
    assert counts(read_data("train.csv", here)) == wanted
    found = read_data(str(here), here)
    assert counts(found) == found.counts == wanted


def test_a_folder_with_one_file(here: Path) -> None:
    (here / "data").mkdir()
    (here / "data" / "d.csv").write_text(csv(lines(40)))
    assert counts(read_data("data", here)) == {"search": 20, "dev": 8, "test": 12}
    (here / "data" / "e.csv").write_text(csv(lines(40)))
    with pytest.raises(UsageError, match=r"several files of data \(d.csv, e.csv\); name one"):
        read_data("data", here)


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (csv(lines(8), ";").encode(), {"delimiter": ";"}),
        (csv(lines(8), ",").replace("What", "これは何").encode("cp932"), {"encoding": "cp932"}),
    ],
)
def test_what_a_file_is_in_is_found(here: Path, content: bytes, how: dict[str, Any]) -> None:
    (here / "d.csv").write_bytes(content)
    found = read_data("d.csv", here)
    assert isinstance(found.splits, dict)
    assert found.splits["search"] == {"path": "./d.csv", **how, "split": "train[:4]"}
    assert counts(found) == {"search": 4, "test": 4}


def test_the_zoo_and_what_is_not_there(here: Path) -> None:
    assert read_data("zoo:problems", here).splits == "zoo:problems"
    with pytest.raises(UsageError, match=r"there is no file \./none\.csv"):
        read_data("./none.csv", here)
    (here / "bad.csv").write_text("a,b\n1,2,3\n1,2,3\n1,2,3\n1,2,3\n")
    with pytest.raises(SpecError, match="row 1 has 3 fields"):
        read_data("bad.csv", here)
