"""What the documents say of installing: every extra, and no package index but torch's own."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
INDEX = re.compile(r"https?://[^\s'\"`)]*(?:pypi|/simple\b|/whl\b)[^\s'\"`),;]*")
EXTRA = re.compile(r"evomerge-optuna\[([\w,-]+)\]")


FOLDERS = (".ci", "benchmarks", "docs", "evomerge_optuna", "storage", "studies")
KINDS = {"", ".conf", ".md", ".py", ".sbatch", ".sh", ".toml", ".txt", ".yaml", ".yml"}


def written() -> list[Path]:
    """The files that a user reads or runs."""
    files = [*ROOT.iterdir(), *(file for name in FOLDERS for file in (ROOT / name).rglob("*"))]
    return [file for file in files if file.suffix in KINDS and file.is_file()]


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


def test_no_package_index_but_torchs_own_is_named() -> None:
    files = written()
    assert {ROOT / "Dockerfile", ROOT / "README.md", ROOT / "Makefile"} <= set(files)
    named = {(f.name, url) for f in files for url in INDEX.findall(f.read_text(errors="ignore"))}
    assert ("Dockerfile", TORCH_CPU) in named
    assert {(name, url) for name, url in named if url != TORCH_CPU} == set()


def test_an_index_of_somebody_would_be_found() -> None:
    for url in ("https://pypi.org/simple", "https://mirror.example/simple/", TORCH_CPU + "121"):
        assert INDEX.findall(f"--index-url {url} .") == [url]


def test_the_table_of_extras_is_whole() -> None:
    page = (ROOT / "docs" / "index.md").read_text()
    table = page.partition("\n## Extras\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(extras())


def test_every_extra_that_is_named_is_there() -> None:
    named = {
        (file.name, extra)
        for file in written()
        for found in EXTRA.findall(file.read_text(errors="ignore"))
        for extra in found.split(",")
    }
    assert len(named) > 8
    assert {(file, extra) for file, extra in named if extra not in extras()} == set()


@pytest.mark.parametrize(
    ("torch", "index"), [("cpu", ["--extra-index-url", TORCH_CPU]), ("cuda", []), ("rocm", None)]
)
def test_the_image_takes_the_build_of_torch_that_is_asked_for(
    tmp_path: Path, torch: str, index: list[str] | None
) -> None:
    """The Dockerfile's own lines, with a pip that writes what it is given."""
    text = (ROOT / "Dockerfile").read_text()
    assert "\nARG TORCH=cpu\n" in text
    lines = text.partition("\nARG TORCH=cpu\nRUN ")[2].partition("\nUSER")[0]
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/given\n')
    pip.chmod(0o755)
    variables = {**os.environ, "TORCH": torch, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", "-c", lines], env=variables, capture_output=True, text=True)
    if index is None:
        assert ran.returncode == 2 and "TORCH is cpu or cuda, not 'rocm'" in ran.stderr
        assert not (tmp_path / "given").exists()
        return
    assert ran.returncode == 0, ran.stderr
    given = (tmp_path / "given").read_text().splitlines()
    assert given[: 4 + len(index)] == [
        "install", "--no-cache-dir", "--constraint", "constraints.txt", *index,
    ]  # fmt: skip
    assert set(re.findall(r"[\w-]+", given[-1])) <= extras()
