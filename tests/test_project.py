"""What stands beside the code keeps its promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def test_compose_file() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]
    subprocess.run([Path(sys.executable).with_name("check-jsonschema"), *schema], check=True)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"postgres", "dashboard", "worker"}
    assert "ports" not in services["postgres"]
    assert services["dashboard"]["ports"] == ["127.0.0.1:8080:8080"]
    assert all(re.search(r":\d", service["image"]) for service in services.values())
    used = {v.partition(":")[0] for s in services.values() for v in s["volumes"]}
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])


@pytest.mark.parametrize("command", ["make demo", "make test", "pip install"])
def test_readme_says_how(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(x for extra in project["optional-dependencies"].values() for x in extra),
    ]
    names = {re.split(r"[\[<>=]", text)[0].lower() for text in wanted} - {project["name"]}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if not line.startswith("#")}
    assert names <= pinned
