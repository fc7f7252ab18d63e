"""A study goes on only as it began. Its prompts are tested in `test_prompts`."""

import shutil
from pathlib import Path

import pytest

from evomerge_optuna.errors import StudyChangedError
from evomerge_optuna.spec import load_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study import schema
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.unchanged import changed_versions, check_unchanged
from tests.conftest import SpecMaker, save_tiny_model


def test_changed_model_files_are_refused(make_spec: SpecMaker, home: Path, tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", 0)
    models = {
        name: str(save_tiny_model(tmp_path / name, i, base)) for i, name in enumerate("ab", 1)
    }
    created = create_study(open_store(), make_spec(base_model=str(base), models=models))
    check_unchanged(created, lambda _: None)
    save_tiny_model(tmp_path / "b", 7, base)
    with pytest.raises(StudyChangedError, match=r"models\.b .*: weights sha256"):
        check_unchanged(created, lambda _: None)


def test_changed_tokenizers_and_problems_are_refused(
    make_spec: SpecMaker, home: Path, tmp_path: Path, tiny: Path
) -> None:
    base = Path(shutil.copytree(tiny / "base", tmp_path / "base"))
    search = Path(shutil.copy(tiny / "search.jsonl", tmp_path))
    task = {"type": "perplexity", "data": {"search": {"path": str(search)}}}
    created = create_study(open_store(), make_spec(base_model=str(base), tasks={"words": task}))
    settings = base / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")
    search.write_text(search.read_text() + '{"text": "word1"}\n')
    with pytest.raises(StudyChangedError) as raised:
        check_unchanged(created, lambda _: None)
    assert "base_model" in str(raised.value) and "tokenizer sha256" in str(raised.value)
    assert "tasks.words.data.search: sha256" in str(raised.value)


def test_a_study_of_an_older_zoo_says_what_helps(home: Path) -> None:
    created = create_study(open_store(), load_spec(Path("studies/quickstart.yaml")))
    check_unchanged(created, lambda _: None)
    older = created.study.user_attrs[schema.FINGERPRINTS]
    older["models.ja"]["weights"] = "0" * 64
    created.study.set_user_attr(schema.FINGERPRINTS, older)
    with pytest.raises(StudyChangedError, match=r"install the version .* or give") as raised:
        check_unchanged(created, lambda _: None)
    assert "(zoo:ja): weights sha256 000" in str(raised.value)
    assert "put the old" not in str(raised.value)


def test_other_versions_are_named(make_spec: SpecMaker, home: Path) -> None:
    created = create_study(open_store(), make_spec())
    assert changed_versions(created) == []
    versions = created.study.user_attrs[schema.VERSIONS]
    created.study.set_user_attr(schema.VERSIONS, versions | {"mergekit": "0.1.4"})
    assert changed_versions(created) == ["mergekit 0.1.4 -> 0.1.5"]
    created.study.set_user_attr(schema.VERSIONS, {"optuna": versions["optuna"]})
    assert changed_versions(created) == []  # of what was not stored nothing is known
