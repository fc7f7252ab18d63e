"""Every benchmark runs, small, and keeps its figures: what it prints here is no measurement."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = {
    "merge": "--size zoo --repeats 1 --merges 5",
    "merge --memory-limit": "1 --size zoo --repeats 1",
    "images": "--size tiny --method ties --repeats 1",
    "stack": "--repeats 1 --layers 2",
    "samplers": "searches --sampler auto --seed 0 --trials 2",
    "trial": "--trials 2",
    "storage": "--parameters 24 --existing 2 --workers 1 --trials 2",
    "search": "--seeds 1 --trials 2",
    "generation": "--shape tiny --repeats 1 --problems 8",
    "adapters_at_once": "--shape tiny --problems 2 --candidates 2",
    "gpu": "--shape tiny --device cpu --repeats 1",
}
# One installs mergekit-evolve in an environment of its own, one a package that has a real model,
# and one runs vLLM alone (tests/vllm).
ELSEWHERE = {"against_mergekit_evolve", "agreement", "live_vllm_long"}


def test_every_benchmark_is_run() -> None:
    run = {name.split()[0] for name in SMALL}
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == run | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, home: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    benchmark, *options = f"{name} {SMALL[name]}".split()
    subprocess.run(
        [sys.executable, BENCHMARKS / f"{benchmark}.py", *options, "--json", figures],
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(figures.read_text())
