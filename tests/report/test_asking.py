"""An export is loaded and asked before it is there; one that is another model never is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import ExportError
from evomerge_optuna.report import export as export_module
from evomerge_optuna.report.export import export
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.final import choose_trial
from evomerge_optuna.study.runner import run_study
from evomerge_optuna.study.storage import open_store
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import SpecMaker, save_tiny_model


@pytest.fixture
def finished(make_spec: SpecMaker, tmp_path: Path, home: Path) -> Iterator[MergeStudy]:
    """Two trials over models of its own."""
    base = save_tiny_model(tmp_path / "base", 0)
    models = {n: str(save_tiny_model(tmp_path / n, i, base)) for i, n in enumerate("ab", 1)}
    merge_study = create_study(open_store(), make_spec(base_model=str(base), models=models))
    run_study(merge_study, 2)
    yield merge_study


def changed(
    file: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(change(content)))

    return write


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_norm(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_a_tensor, r"is not whole: .* has no tensor model\.norm\.weight"),
        (with_another_norm, "its tensors differ"),
        (changed("generation_config.json", lambda c: {**c, "eos_token_id": 5}), "end with other"),
        (changed("config.json", lambda c: {**c, "rms_norm_eps": 0.5}), "it answers otherwise"),
        (
            changed("tokenizer_config.json", lambda c: {**c, "chat_template": "{{ messages }}"}),
            "its chat template is another",
        ),
    ],
)
def test_what_is_not_the_scored_model_is_not_exported(
    finished: MergeStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    told: str,
) -> None:
    monkeypatch.setattr(export_module, "write_older_form", damage)  # the last that is written
    with pytest.raises(ExportError, match=told):
        export(finished, choose_trial(finished, "best"), tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_what_was_checked_is_said(finished: MergeStudy, tmp_path: Path) -> None:
    said: list[str] = []
    export(finished, choose_trial(finished, "best"), tmp_path / "out", said.append)
    (line,) = said
    assert "plain transformers loads it, no tensor missing or left over" in line
    assert "tensors, logits, answers to 4 problems, tokens" in line
