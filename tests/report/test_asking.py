"""An export is loaded and asked before it is there; one that is another model never is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers.utils import chat_template_utils

from evomerge_optuna.errors import ExportError
from evomerge_optuna.models import older_form
from evomerge_optuna.report import asking
from evomerge_optuna.report.export import export
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import DAY
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import SpecMaker, save_tiny_model


@pytest.fixture
def finished(make_spec: SpecMaker, tmp_path: Path, home: Path) -> Iterator[MergeStudy]:
    """Two trials over models of its own."""
    base = save_tiny_model(tmp_path / "base", 0)
    models = {n: str(save_tiny_model(tmp_path / n, i, base)) for i, n in enumerate("ab", 1)}
    merge_study = create_study(open_store(), make_spec(base_model=str(base), models=models))
    run_trials(merge_study, 2)
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
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.norm.weight"][0] *= -3
    save_file(tensors, file, metadata={"format": "pt"})


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
    monkeypatch.setattr(older_form, "write_older_form", damage)  # the last that is written
    with pytest.raises(ExportError, match=told):
        export(finished, find_trial(finished, "best"), tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_what_was_checked_is_said(finished: MergeStudy, tmp_path: Path) -> None:
    said: list[str] = []
    export(finished, find_trial(finished, "best"), tmp_path / "out", said.append)
    (line,) = said
    assert "plain transformers loads it, no tensor missing or left over" in line
    assert "tensors, logits, answers to 4 problems, tokens" in line


def test_without_problems_of_its_own_the_logits_decide(
    finished: MergeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a study that has only tasks of lm_eval."""
    monkeypatch.setattr(asking, "_outcomes", lambda *_: ())
    damage = changed("config.json", lambda c: {**c, "rms_norm_eps": 0.5})
    monkeypatch.setattr(older_form, "write_older_form", damage)
    with pytest.raises(ExportError, match="its logits differ by"):
        export(finished, find_trial(finished, "best"), tmp_path / "out")


@pytest.mark.parametrize("problems", [True, False])
def test_a_stack_that_answers_otherwise_is_not_exported(
    spec_content: Callable[..., dict[str, Any]],
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    problems: bool,
) -> None:
    content = spec_content(stage="dfs", stack={"repeats": 2})
    del content["merge"], content["base_model"]
    merge_study = create_study(open_store(), parse_spec(content))
    run_trials(merge_study, 1)
    if not problems:
        monkeypatch.setattr(asking, "_outcomes", lambda *_: ())
    monkeypatch.setattr(older_form, "write_older_form", with_another_norm)
    with pytest.raises(ExportError, match="its logits differ by"):
        export(merge_study, find_trial(merge_study, "best"), tmp_path / "out")


def test_the_chat_template_tells_the_day_of_the_study(
    finished: MergeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def note(*_: Any) -> tuple[()]:
        told.append(chat_template_utils.datetime.now().strftime("%Y-%m-%d"))
        return ()

    finished.study.set_user_attr(DAY, "2020-02-02")
    monkeypatch.setattr(asking, "_outcomes", note)
    later = open_study(finished.store, finished.name)
    export(later, find_trial(later, "best"), tmp_path / "out")
    assert told == ["2020-02-02", "2020-02-02"]
