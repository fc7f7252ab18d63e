"""The benchmark of vLLM, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "live_vllm.py"


def test_it_runs(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    size = ["--shape", "tiny", "--problems", "4", "--repeats", "1", "--threads", "1"]
    subprocess.run([sys.executable, BENCHMARK, *size, "--json", figures], check=True)
    assert json.loads(figures.read_text())["rows"]
