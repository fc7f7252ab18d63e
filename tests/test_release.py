"""What is published: a wheel and a source distribution that hold what a user needs."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from evomerge_optuna import __version__
from evomerge_optuna.zoo.shipped import SHIPPED

ROOT = Path(__file__).parent.parent


def test_wheel_and_sdist(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    name = f"evomerge_optuna-{__version__}"
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl") as wheel:
        files = set(wheel.namelist())
    assert {"evomerge_optuna/py.typed", "evomerge_optuna/studies/quickstart.yaml"} <= files
    zoo = {str(file.relative_to(ROOT)) for file in SHIPPED.rglob("*") if file.is_file()}
    assert zoo and zoo <= files
    assert {file.split("/")[0] for file in files} == {"evomerge_optuna", f"{name}.dist-info"}
    with tarfile.open(tmp_path / f"{name}.tar.gz") as sdist:
        files = set(sdist.getnames())
    wanted = (
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "docs/python.md",
        "studies/quickstart.yaml",
        "tests/fuzz.py",
    )
    assert {f"{name}/{file}" for file in (*wanted, *zoo)} <= files
    # What the suite reads and docs/deploy names.
    deployed = (
        ".dockerignore",
        ".env.example",
        "Dockerfile",
        "docker-compose.yml",
        "storage/README.md",
    )
    assert {f"{name}/{file}" for file in deployed} <= files
