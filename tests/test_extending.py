"""What docs/extending.md adds is added to a copy of the package, and studies run with it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import WORDS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r'^```(py|diff) title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the page changes it, and the page's other files."""
    folder = tmp_path_factory.mktemp("extended")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "evomerge_optuna", folder / "evomerge_optuna", ignore=skipped)
    for kind, name, content in BLOCK.findall(PAGE):
        file = folder / name
        if kind == "diff":
            file.write_text(changed(file.read_text(), content))
        else:
            assert not file.exists()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    return folder


def changed(text: str, difference: str) -> str:
    """The text after a difference in the unified form, without the numbers of its lines."""
    lines = difference.splitlines(keepends=True)
    before, after = ("".join(x[1:] for x in lines if x[0] in kept) for kept in (" -", " +"))
    assert text.count(before) == 1, f"these lines are there {text.count(before)} times:\n{before}"
    return text.replace(before, after)


RUN = """
import json, sys
import evomerge_optuna

trials = []
for spec in json.load(sys.stdin):
    study = evomerge_optuna.run_study(spec)
    trials.append([[trial.params, trial.values] for trial in study.trials()])
print(json.dumps(trials))
"""


@pytest.fixture(scope="module")
def trials(
    extended: Path, spec_content: Callable[..., dict[str, Any]]
) -> dict[str, list[tuple[dict[str, float], list[float]]]]:
    """Parameters and values of the trials of a study of each section, all run by one process."""
    rows = [{"question": word, "answer": " ".join(WORDS[:4])} for word in WORDS[:4]]
    (extended / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections = dict(SECTION.findall(PAGE))
    specs = [
        spec_content(study=name, trials=6) | yaml.safe_load(found[1])
        for name, text in sections.items()
        if (found := YAML.search(text))
    ]
    variables = {"PYTHONPATH": str(extended), "EVOMERGE_HOME": str(extended / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(specs),
        cwd=extended,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return {spec["study"]: found for spec, found in zip(specs, json.loads(ran.stdout), strict=True)}


def test_a_python_function(trials: dict[str, Any]) -> None:
    values = [value for _, (value,) in trials["A Python function"]]
    assert len(values) == 6
    assert all(0 <= value <= 1 and 16 * value == round(16 * value) for value in values)


def test_a_merge_method(trials: dict[str, Any]) -> None:
    found = trials["A merge method"]
    names = {f"{model}.{name}.g0" for model in "ab" for name in ("weight", "density", "epsilon")}
    assert [set(params) for params, _ in found] == [names] * 6
    assert len({value for _, (value,) in found}) == 6


def test_a_sampler(trials: dict[str, Any]) -> None:
    assert len({tuple(params.values()) for params, _ in trials["A sampler"]}) == 6
