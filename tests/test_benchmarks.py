"""Every benchmark runs, small, and keeps its figures: what it prints here is no measurement."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge_optuna.zoo.language import RECIPE, build_zoo
from tests.zoo.test_language import short

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = {
    "merge": "--size zoo --repeats 1 --merges 5",
    "stack": "--repeats 1 --layers 2",
    "samplers": "--trials 2 --seeds 1 --population 4",
    "trial": "--trials 2",
    "storage": "--parameters 24 --existing 2 --workers 1 --trials 2",
    "search": "--seeds 1 --trials 2",
    "generation": "--repeats 1 --problems 8",
}
# One installs mergekit-evolve in an environment of its own, one a package that has a real model,
# and one runs vLLM (tests/vllm).
ELSEWHERE = {"against_mergekit_evolve", "agreement", "live_vllm"}


@pytest.fixture(scope="module")
def home_with_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose zoo has learnt next to nothing, in the place of the one that has."""
    home = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_HOME", str(home))
        built = build_zoo(recipe=short())
    shutil.move(built, built.with_name(f"zoo-{RECIPE.digest()}"))
    return home


def test_every_benchmark_is_run() -> None:
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == SMALL.keys() | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, home_with_zoo: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *SMALL[name].split(), "--json", figures],
        env={**os.environ, "EVOMERGE_HOME": str(home_with_zoo)},
        check=True,
    )
    assert json.loads(figures.read_text())
