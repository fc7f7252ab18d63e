"""The benchmarks of vLLM, small."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vllm
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def found_by(name: str, figures: Path, *size: str) -> Any:
    subprocess.run([sys.executable, BENCHMARKS / name, *size, "--json", figures], check=True)
    return json.loads(figures.read_text())


def test_engines_side_by_side(tmp_path: Path) -> None:
    size = ["--shape", "tiny", "--problems", "2", "--repeats", "1"]
    rows = found_by("generation.py", tmp_path / "figures.json", *size)["rows"]
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    assert all({"plain", "ours", "vLLM"} == row["rates"].keys() for row in rows)


def test_a_live_engine_is_what_fresh_ones_are_and_does_not_grow(tmp_path: Path) -> None:
    """`benchmarks/README.md` has what it finds after 20 recipes and 300 candidates."""
    size = ["--recipes", "2", "--candidates", "60"]
    tied, untied, held = found_by("live_vllm_long.py", tmp_path / "figures.json", *size)
    for row in (tied, untied):
        assert row["farthest"] < 1e-5 and row["all texts alike"] == 2
    assert held["open files after"] == held["open files before"]
    assert held["MiB after"] < held["MiB before"] + 30


def test_adapters_at_once_answer_as_one_by_one(tmp_path: Path) -> None:
    size = ["--shape", "tiny", "--problems", "3", "--candidates", "3"]
    rows = found_by("adapters_at_once.py", tmp_path / "figures.json", *size)["rows"]
    assert [row["at_once"] for row in rows] == [1, 1, 3, 3]
    assert all(row["alike"] == 3 and row["a_minute"] > 0 for row in rows)
