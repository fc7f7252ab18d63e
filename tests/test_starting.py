"""What a command has imported when it answers: who only looks at studies waits for no torch."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from tests.conftest import SpecMaker

# Each takes from a quarter of a second to several.
SLOW = {"torch", "transformers", "mergekit", "datasets", "pandas", "sklearn", "scipy.stats"}
SLOW |= {"optuna_dashboard", "plotly", "boto3", "peft", "lm_eval"}

_LOOKING = """
import json, sys
from evomerge_optuna.cli import main
found = {}
for words in json.loads(sys.argv[1]):
    main(words, standalone_mode=False)
    found[" ".join(words)] = sorted(sys.modules)
open(sys.argv[2], "w").write(json.dumps(found))
"""

_RUNNING = """
import json, sys
import optuna
from evomerge_optuna.cli import main

tell = optuna.Study.tell

def first_told(*given, **named):
    result = tell(*given, **named)
    open(sys.argv[2], "w").write(json.dumps(sorted(sys.modules)))
    optuna.Study.tell = tell
    return result

optuna.Study.tell = first_told
main(["study", "run", sys.argv[1], "--trials", "1"], standalone_mode=False)
"""


def imported(script: str, argument: str, folder: Path) -> Any:
    """What a script that notes the modules it has imported notes."""
    found = folder / "found.json"
    command = [sys.executable, "-c", script, argument, str(found)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)
    return json.loads(found.read_text())


def test_who_looks_at_studies_imports_nothing_slow(
    make_spec: SpecMaker, home: Path, tmp_path: Path
) -> None:
    create_study(open_store(), make_spec())
    commands = [["study", "list"], ["study", "list", "--json"], ["study", "example"]]
    commands += [["study", "show", "tiny"], ["study", "show", "tiny", "--json"]]
    found = imported(_LOOKING, json.dumps(commands), tmp_path)
    assert len(found) == len(commands)
    for command, modules in found.items():
        assert "evomerge_optuna.cli" in modules
        assert SLOW & set(modules) == set(), command


@pytest.mark.parametrize("words", ["--help", "study --help", "study run --help"])
def test_help_does_not_import_optuna(words: str, tmp_path: Path) -> None:
    script = f"""
import json, sys
from evomerge_optuna.cli import main
try:
    main({words.split()!r})
except SystemExit:
    pass
open(sys.argv[2], "w").write(json.dumps(sorted(sys.modules)))
"""
    modules = set(imported(script, "", tmp_path))
    assert {"optuna", "pydantic", "sqlalchemy", "rich.table"} & modules == set()


def test_a_first_trial_waits_for_no_dashboard(
    spec_content: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(spec_content()))
    modules = set(imported(_RUNNING, str(file), tmp_path))
    assert "torch" in modules
    unneeded = {"optuna_dashboard", "sklearn", "plotly", "scipy.stats", "datasets", "lm_eval"}
    assert unneeded & modules == set()
