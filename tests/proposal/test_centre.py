"""The base is found among real tiny models, by what their files say or by their weights.

Covers proposal.base_model, proposal.inventory, proposal.sources, too.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge_optuna.errors import UsageError
from evomerge_optuna.proposal.base_model import Base, adapter_base, find_base
from evomerge_optuna.proposal.centre import centre
from evomerge_optuna.proposal.inventory import Inventory, look_around
from evomerge_optuna.proposal.sources import proposed_base, proposed_sources, sources_of
from tests.conftest import save_adapter, save_tiny_model


@pytest.fixture
def here(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with fine-tunes and their base, whose name says nothing, and data."""
    for name, copy in {"base": "m", "a": "a", "b": "b"}.items():
        shutil.copytree(tiny / name, tmp_path / "models" / copy)
    shutil.copy(tiny / "search.jsonl", tmp_path / "data.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "storage"))
    yield tmp_path


def test_what_lies_here(here: Path, tmp_path: Path) -> None:
    (here / "storage" / "models").mkdir(parents=True)
    shutil.copytree(here / "models" / "a", here / "storage" / "models" / "cached")
    save_adapter(here / "lora", here / "models" / "m", 1)
    shutil.copytree(here / "models" / "a", here / "judge")
    config = json.loads((here / "judge" / "config.json").read_text()) | {"model_type": "clip"}
    (here / "judge" / "config.json").write_text(json.dumps(config))
    assert look_around(here) == Inventory(
        models=("models/a", "models/b", "models/m"),
        adapters=("lora",),
        judges=("judge",),
        data=("data.jsonl",),
    )


def test_weights_tell_the_base(here: Path) -> None:
    folders = {name: here / "models" / name for name in ("a", "b", "m")}
    found = centre(folders)
    assert found is not None and found.model == "m" and abs(found.cosine) < 0.2
    del folders["b"]
    assert centre(folders) is None


def test_fine_tunes_without_their_base_are_no_centre(tiny: Path, tmp_path: Path) -> None:
    assert centre({name: tiny / name for name in "abc"}) is None
    (tmp_path / "m").symlink_to(tiny / "base")
    found = find_base([str(tiny / name) for name in "abc"], [str(tmp_path / "m")])
    assert found is not None and found.model == str(tmp_path / "m")


def test_models_of_other_shapes_or_twice_the_same_tell_nothing(here: Path, tiny: Path) -> None:
    folders = {name: tiny / name for name in "ab"}
    assert centre({**folders, "other": save_tiny_model(here / "o", 1, hidden_size=32)}) is None
    assert centre({**folders, "again": tiny / "a"}) is None
    assert centre({**folders, "no model": here}) is None


def test_sources_and_base_without_a_word(here: Path) -> None:
    found = look_around(here)
    assert proposed_sources(found) == ["models/a", "models/b"]
    base = proposed_base(["models/a", "models/b"], found)
    assert base == Base("models/m", "its weights lie between those of the others")
    assert sources_of(["models/a", "models/m"], base, found).by_key == {
        "base_model": "models/m",
        "models.a": "models/a",
    }


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("README.md", "---\nbase_model: org/m\n---\n# A card", "the card"),
        ("README.md", "---\nbase_model: [org/m]\n---\n", "the card"),
        ("config.json", '"/home/me/m"', "config.json"),
    ],
)
def test_a_file_names_the_base(here: Path, file: str, text: str, place: str) -> None:
    if file == "config.json":
        config = json.loads((here / "models" / "a" / file).read_text())
        text = json.dumps({**config, "_name_or_path": json.loads(text)})
    (here / "models" / "a" / file).write_text(text)
    sources = ["models/a", "models/b"]
    assert find_base(sources, ["models/m"]) == Base("models/m", f"named by {place} of models/a")


def test_a_card_names_a_model_of_the_hub(here: Path) -> None:
    (here / "models" / "a" / "README.md").write_text("---\nbase_model: org/else\n---\n")
    found = find_base(["models/a", "models/b"], ())
    assert found is not None and found.model == "org/else"
    (here / "models" / "a" / "README.md").write_text("---\nbase_model: out/checkpoint-9\n---\n")
    assert find_base(["models/a", "models/b"], ()) is None


def test_a_name_tells_the_base(here: Path) -> None:
    found = find_base(["models/a", "models/b"], ["other/model-base", "else"])
    assert found == Base("other/model-base", "its name says so")


def test_adapters_follow_their_base(here: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        save_adapter(here / name, Path("models/m"), seed)
    found = look_around(here)
    assert adapter_base("one", found.models) == "models/m"
    chosen = ["one", "two"]
    base = proposed_base(chosen, found)
    assert base == Base("models/m", "named by adapter_config.json of one")
    assert sources_of(chosen, base, found).models == {
        "one": "models/m+one",
        "two": "models/m+two",
    }


def test_too_few_models(here: Path) -> None:
    with pytest.raises(UsageError, match="needs two models, or one and a base model"):
        sources_of(["models/a"], None, Inventory())
