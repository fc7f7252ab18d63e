"""What the pages on extending add is added to a copy of the package, and studies run with it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import WORDS
from tests.pages import DOCS, ROOT, extend
from tests.vision import save_tiny_llava

PAGES = ("extending.md", "guides/research.md")
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the pages change it, and their other files."""
    folder = tmp_path_factory.mktemp("extended")
    extend(folder, *PAGES)
    return folder


RUN = """
import json, sys
import evomerge_optuna

trials = {}
for spec in json.load(sys.stdin):
    plain = spec["study"] == "An engine"
    study = evomerge_optuna.run_study(spec)
    trials[spec["study"]] = [[trial.params, trial.values] for trial in study.trials()]
    assert not plain or "evomerge_optuna.engines.plain" in sys.modules
    if spec["study"] == "A family":
        evomerge_optuna.export("A family", "exported")
print(json.dumps(trials))
"""

Trials = dict[str, list[tuple[dict[str, float], list[float]]]]


@pytest.fixture(scope="module")
def trials(extended: Path, spec_content: Callable[..., dict[str, Any]], tiny: Path) -> Trials:
    """Parameters and values of the trials of a study of each section, all run by one process."""
    words = " ".join(WORDS[:4])
    rows = [{"question": w, "answer": "word1", "text": f"{w} {words}"} for w in WORDS[:4]]
    for name in ("words", "texts"):
        (extended / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"search": {"path": "words.jsonl"}}
    task = {"type": "generate", "data": data, "scorer": {"regex": "(word1)"}, "max_new_tokens": 4}
    vision = save_tiny_llava(extended / "vlm", 5, tiny / "base", rows=3)
    parts: dict[str, dict[str, Any]] = {
        "A family": {
            "models": {"vl": str(vision), "a": str(tiny / "a")},
            "merge": {"method": "ties", "tokenizer_source": "union"},
        },
        "An engine": {
            "tasks": {"t": task},
            "objectives": [{"maximize": "t.accuracy"}],
            "evaluation": {"engine": "plain"},
        },
        "Another": {"tasks": {"t": task}, "objectives": [{"maximize": "t.accuracy"}]},
    }
    sections = [found for page in PAGES for found in SECTION.findall((DOCS / page).read_text())]
    for name, text in sections:
        if found := YAML.search(text):
            parts[name] = yaml.safe_load(found[1])
    specs = [spec_content(study=name, trials=6) | part for name, part in parts.items()]
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
    found: Trials = json.loads(ran.stdout)
    return found


def test_a_python_function(trials: Trials) -> None:
    values = [value for _, (value,) in trials["A Python function"]]
    assert len(values) == 6
    assert all(value in (0, 0.25, 0.5, 0.75, 1) for value in values)


def test_a_merge_method(trials: Trials) -> None:
    found = trials["A merge method"]
    assert [set(params) for params, _ in found] == [{"a.weight.g0", "b.weight.g0"}] * 6
    assert len({value for _, (value,) in found}) == 6


def test_a_task(trials: Trials) -> None:
    assert len({value for _, (value,) in trials["A task"]}) == 6
    assert all(0 < value < 100 for _, (value,) in trials["A task"])


def test_a_sampler(trials: Trials) -> None:
    assert len({tuple(params.values()) for params, _ in trials["A sampler"]}) == 6


def test_a_family(trials: Trials, extended: Path) -> None:
    assert len(trials["A family"]) == 6
    assert "pipeline_tag: image-to-text" in (extended / "exported" / "README.md").read_text()


def test_an_engine(trials: Trials) -> None:
    assert trials["An engine"] == trials["Another"]
    assert len(trials["An engine"]) == 6


def test_what_is_added_is_in_the_style_of_the_package(extended: Path) -> None:
    check = ["check", "--config", str(ROOT / "pyproject.toml"), str(extended / "evomerge_optuna")]
    subprocess.run([Path(sys.executable).with_name("ruff"), *check], check=True)
