"""The studies of tests/data/older, made by an earlier version, in a copy of their own."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from evomerge_optuna.cli import main
from tests.data.older import make

FILES = Path(make.__file__).parent
STUDIES = ["merge", "path", "both"]


@pytest.fixture
def older(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the studies and of their models, which they name by relative paths."""
    folder = tmp_path / "older"
    shutil.copytree(FILES, folder)
    monkeypatch.chdir(folder)
    return folder


def command(*arguments: str) -> str:
    """What a command about these studies prints, which runs in this process."""
    found = CliRunner().invoke(main, [*arguments, "--storage", make.URL], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout
