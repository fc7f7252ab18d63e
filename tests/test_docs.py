"""The documentation says what is so: every key is described, and its example runs."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mergekit.config import MergeConfiguration

from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spec.part import Strict
from evomerge_optuna.study.result import result_of
from tests.conftest import SpecMaker

DOCS = Path(__file__).parent.parent / "docs"


def parts(kind: type[Strict] = Strict) -> Iterator[type[Strict]]:
    for part in kind.__subclasses__():
        yield part
        yield from parts(part)


def test_every_key_of_the_spec_is_described() -> None:
    fields = [(part, name, field) for part in parts() for name, field in part.model_fields.items()]
    assert len(fields) > 50
    assert [f"{part.__name__}.{name}" for part, name, f in fields if not f.description] == []


def merges() -> list[str]:
    """The examples of what a merge may search."""
    found = re.findall(r"```yaml\n(merge:.*?)```", (DOCS / "stages.md").read_text(), re.DOTALL)
    assert len(found) == 5
    return found


@pytest.mark.parametrize("example", merges())
def test_an_example_of_a_search_space(make_spec: SpecMaker, example: str) -> None:
    space = ParameterSpace.of(make_spec(**yaml.safe_load(example)), layers=32)
    recipe = space.recipe(space.baseline())
    assert space.ranges() and MergeConfiguration.model_validate(recipe.configuration)


def test_the_python_example(
    tiny: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    for name, model in {"base": "base", "chat": "a", "code": "b"}.items():
        (tmp_path / "models" / name).symlink_to(tiny / model)
    for split in ("search", "test"):
        (tmp_path / f"{split}.jsonl").symlink_to(tiny / f"{split}.jsonl")
    code = re.search(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert code
    (tmp_path / "example.py").write_text(code[1].replace('"trials": 20', '"trials": 3'))
    monkeypatch.chdir(tmp_path)
    ran = runpy.run_path("example.py", run_name="__main__")
    assert ran["study"].finished() == 3
    assert ran["digest"] == result_of(ran["best"]).sha256 == digest_files(Path("merged-model"))


def test_every_program_of_the_comparison_says_what_was_read() -> None:
    page, _, sources = (DOCS / "comparison.md").read_text().partition("<!--")
    read, _, does = page.partition("## What each of them does")
    row = re.compile(r"^\| \[([^]]+)\]\(http[^|]*\|[^|]*\|([^|]*)\|$", re.MULTILINE)
    programs = dict(row.findall(read))
    rows = re.findall(r"^\| ([^|]+?) \|", does.partition("\n## ")[0], re.MULTILINE)
    assert [name for name in rows if name not in ("evomerge-optuna", "---")] == list(programs)
    assert all(re.search(r"`[0-9a-f]{7}`", said) for said in programs.values())
    assert [name for name in programs if f"\n{name}: " not in sources.lower() + sources] == []
