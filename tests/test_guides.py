"""Each guide is done line by line, with tiny stand-ins of the models and data that it names."""

import json
import shutil
from pathlib import Path

import pytest

from evomerge_optuna.models.digest import digest_files
from tests.conftest import CommandLine, save_tiny_model
from tests.pages import DOCS, NOT_RUN, ROOT, blocks, do, extend

# Of each guide, the blocks that cannot be run here. The page gives the reader the reason.
LEFT_OUT = {"research": 2}


def test_what_is_not_run_is_counted() -> None:
    guides = [file.stem for file in (DOCS / "guides").glob("*.md")]
    assert sorted(guides) == sorted(LEFT_OUT)
    for name, count in LEFT_OUT.items():
        found = blocks(f"guides/{name}.md")
        assert len([block for block in found if block.kind == "sh" and block.is_run]) > 1
        assert len([block for block in found if not block.is_run]) == count
        assert (DOCS / "guides" / f"{name}.md").read_text().count(NOT_RUN) == count


@pytest.fixture
def reader(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Somebody in an empty folder, who has set no variables."""
    monkeypatch.delenv("EVOMERGE_HOME")
    folder = command_line.folder / "empty"
    folder.mkdir()
    return CommandLine(folder, {})


def save_models(folder: Path, *names: str) -> None:
    """A tiny base model, the first, and fine-tunes of it."""
    base = save_tiny_model(folder / names[0], 0)
    for seed, name in enumerate(names[1:], start=1):
        save_tiny_model(folder / name, seed, base)


def test_a_sampler_or_a_method_of_ones_own(reader: CommandLine) -> None:
    folder = reader.folder
    extend(folder, "guides/research.md")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    save_models(folder / "models", "base", "chat", "code")
    rows = [{"text": f"word{i % 7} word{i % 11} word{i % 13} word{i // 13}"} for i in range(200)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = CommandLine(folder, {"PYTHONPATH": str(folder)})
    table, tested, _ = do("guides/research.md", own, afresh=True)
    assert "each" in table and "worst" in table and "%" not in table
    assert "Gap of trial" in tested
    assert digest_files(folder / "my-model") in (folder / "my-model" / "README.md").read_text()
