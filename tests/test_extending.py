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

trials = {}
for spec in json.load(sys.stdin):
    study = evomerge_optuna.run_study(spec)
    trials[spec["study"]] = [
        {"recipe": t.user_attrs["recipe"], "params": t.params, "values": t.values}
        for t in study.trials()
    ]
print(json.dumps(trials))
"""


@pytest.fixture(scope="module")
def trials(
    extended: Path, spec_content: Callable[..., dict[str, Any]], tiny: Path
) -> dict[str, list[dict[str, Any]]]:
    """The trials of a study with each addition, all run by one process."""
    (extended / "words.jsonl").write_text(
        "".join(json.dumps({"question": WORDS[i], "answer": " ".join(WORDS[:4])}) + "\n" for i in range(4))
    )
    parts = [yaml.safe_load(x) for x in YAML.findall(PAGE)]
    specs = [spec_content(study=f"study-{i}", trials=4, **part) for i, part in enumerate(parts)]
    variables = {**os.environ, "PYTHONPATH": str(extended), "EVOMERGE_HOME": str(extended / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(specs),
        cwd=extended,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_all(trials):
    for name, found in trials.items():
        for t in found: print(name, t)
    assert 0
