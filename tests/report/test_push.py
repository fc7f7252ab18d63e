"""A model is pushed to a hub whole, private and with its results, or one line says why not.

Covers report.card_metadata and report.hub, too.
"""

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.report.card import without_places
from evomerge_optuna.report.card_metadata import evaluation_results
from evomerge_optuna.report.push import push
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import CommandLine, SpecMaker
from tests.hub import TOKEN, Hub, Repo, running

NAME = "me/merged"


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, make_spec: SpecMaker) -> Iterator[MergeStudy]:
    """A study whose best is scored on test."""
    home = tmp_path_factory.mktemp("pushed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_HOME", str(home))
        patch.delenv("EVOMERGE_STORAGE", raising=False)
        study = create_study(open_store(), make_spec(trials=4))
        run_trials(study, 4)
        scorer = FinalScorer(study)
        scorer.score_finalists()
        scorer.final_scores(find_trial(study.as_read(), "best"))
        yield study


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub that this process and those that it starts know, and a token for it."""
    with running() as hub:
        here = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        here |= {"HF_HOME": str(tmp_path / "hf")}
        for variable, value in here.items():
            monkeypatch.setenv(variable, value)
        # Which read the variables when they were imported.
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        waiting = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        monkeypatch.setattr("huggingface_hub.utils._http.time", waiting)
        yield hub


@pytest.fixture
def pushed(tested: MergeStudy) -> Callable[..., list[str]]:
    """Pushes the best trial; gives what was said."""

    def run(name: str = NAME, **how: bool) -> list[str]:
        said: list[str] = []
        seen = tested.as_read()
        assert TOKEN not in push(seen, find_trial(seen, "best"), name, say=said.append, **how)
        assert TOKEN not in "".join(said)
        return said

    return run


def refused(pushed: Callable[..., list[str]], name: str = NAME, **how: bool) -> str:
    with pytest.raises(EvomergeError) as caught:
        pushed(name, **how)
    line = str(caught.value)
    assert "\n" not in line and TOKEN not in line
    return line


def test_a_private_repository_with_the_scored_model_and_its_results(
    tested: MergeStudy, hub: Hub, pushed: Callable[..., list[str]], tmp_path: Path
) -> None:
    said = pushed()
    repo, best = hub.repos[NAME], find_trial(tested.as_read(), "best")
    assert repo.private
    assert hub.commits == [f"Trial {best.number} of tiny, by evomerge-optuna"]
    assert any(
        line.startswith("uploading ") and line.endswith(f"{hub.address}/{NAME}") for line in said
    )
    for path, content in repo.files.items():
        (tmp_path / path).write_bytes(content)
    assert digest_files(tmp_path) == result_of(best).sha256

    card = ModelCard((tmp_path / "README.md").read_text())
    (result,) = card.data.eval_results
    scores = tested.as_read().attributes()[f"final:{result_of(best).recipe}"]["test"]
    score = scores["words.perplexity"]
    assert result.metric_value == pytest.approx(score["value"], abs=1e-6)
    assert (result.metric_type, result.dataset_name, result.dataset_split) == (
        "perplexity", "words", "test",
    )  # fmt: skip
    assert result.task_type == "text-generation"
    assert "95% interval" in result.metric_name
    assert card.data.model_name == "tiny"


def test_nothing_that_is_pushed_says_where_files_lie(
    hub: Hub, pushed: Callable[..., list[str]], tiny: Path
) -> None:
    pushed()
    for path, content in hub.repos[NAME].files.items():
        assert str(tiny).encode() not in content, path
    recipe = yaml.safe_load(hub.repos[NAME].files["mergekit_config.yml"])
    assert recipe["base_model"] == "base"


def test_places_are_left_out_and_nothing_else() -> None:
    content = {"a": ["/x/y/model+/z/adapter", "o/model@v1+/z/adapter"], "b": "1 +/2", "c": 3}
    assert without_places(content) == {
        "a": ["model+adapter", "o/model@v1+adapter"],
        "b": "1 +/2",
        "c": 3,
    }


def test_the_texts_of_a_task_are_no_places() -> None:
    task = {"type": "choice", "prompt": "/no_think {question}", "data": {"path": "/x/y.jsonl"}}
    assert without_places({"prompt": task, "system": "/x/model"}) == {
        "prompt": {**task, "data": {"path": "y.jsonl"}},
        "system": "model",  # a model that is called so
    }


def test_public_only_where_it_is_asked_for(hub: Hub, pushed: Callable[..., list[str]]) -> None:
    pushed(public=True)
    assert not hub.repos[NAME].private
    assert "everybody can see it; add --public" in refused(pushed)
    pushed(public=True)


def test_an_upload_that_was_cut_short_goes_on(hub: Hub, pushed: Callable[..., list[str]]) -> None:
    hub.failures = [("/commit/", 400)]
    assert "the hub refused it" in refused(pushed)
    sent = [line for line in hub.asked if line.startswith("PUT /lfs/")]
    assert len(sent) == 1 and hub.commits == []
    pushed()
    assert [line for line in hub.asked if line.startswith("PUT /lfs/")] == sent
    assert "model.safetensors" in hub.repos[NAME].files
    pushed()  # there is nothing left to do
    assert len(hub.commits) == 1


def test_another_card_of_the_same_model_is_replaced(
    hub: Hub, pushed: Callable[..., list[str]]
) -> None:
    pushed()
    hub.repos[NAME].files["README.md"] = b"of last week"
    pushed()
    assert b"of last week" not in hub.repos[NAME].files["README.md"]


@pytest.mark.parametrize("path", ["model.safetensors", "README.md", "config.json", "train.py"])
def test_nothing_else_is_overwritten(hub: Hub, pushed: Callable[..., list[str]], path: str) -> None:
    hub.repos[NAME] = Repo(True, {".gitattributes": b"", path: b"mine"})
    assert f"{NAME} has something else ({path}); name another" in refused(pushed)
    assert hub.repos[NAME].files[path] == b"mine"
    assert not [line for line in hub.asked if line.startswith("PUT")]


def test_a_study_that_is_not_tested_has_no_results(
    tested: MergeStudy, hub: Hub, tmp_path: Path
) -> None:
    seen = tested.as_read()
    best = find_trial(seen, "best")
    other = next(
        t for t in seen.ranked() if t != best and t.number > 0
    )  # 0 is the uniform merge, which is tested
    said: list[str] = []
    push(seen, other, NAME, say=said.append)
    assert f"evomerge-optuna study test tiny --trial {other.number} scores them" in "".join(said)
    assert evaluation_results(seen, other) == []
    assert b"model-index" not in hub.repos[NAME].files["README.md"]


def test_no_folder_to_export_to(
    hub: Hub, pushed: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "file" / "home"))
    assert refused(pushed).endswith("Not a directory; the model is exported there first")
    assert not hub.repos


def test_no_token(
    hub: Hub, pushed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the hub" in refused(pushed)
    assert hub.asked == []


def test_a_wrong_token(
    hub: Hub, pushed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the hub does not know this token" in refused(pushed)
    assert "hf_wrong" not in refused(pushed)


def test_a_token_that_may_only_read(hub: Hub, pushed: Callable[..., list[str]]) -> None:
    hub.role = "read"
    assert "this token may not write there" in refused(pushed)
    assert hub.repos == {}


def test_a_namespace_of_somebody_else(hub: Hub, pushed: Callable[..., list[str]]) -> None:
    line = refused(pushed, "you/merged")
    assert line.startswith("you/merged: this token may not write there")
    assert "don't have the rights" in line


@pytest.mark.parametrize("name", ["merged", "a/b/c", "me/", "me/../x", "me/a b", "-/x", "me/a--b"])
def test_no_name_of_a_repository(hub: Hub, pushed: Callable[..., list[str]], name: str) -> None:
    with pytest.raises(UsageError, match="is no repository; write USER/NAME"):
        pushed(name)
    assert hub.asked == []


def test_no_network(
    hub: Hub, pushed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        assert f"{address} cannot be reached (ConnectError" in refused(pushed)


def test_what_is_waited_for_is_said(hub: Hub, pushed: Callable[..., list[str]]) -> None:
    hub.failures = [("/preupload/", 503)]
    said = pushed()
    assert any("503" in line for line in said)
    assert any(line.startswith("Retrying in ") for line in said)
    hub.failures = [("/preupload/", 503)] * 6
    assert "the hub failed (status 503)" in refused(pushed)


def test_the_command(hub: Hub, tested: MergeStudy, tmp_path: Path) -> None:
    home_of_study = str(tested.store.url.database).rpartition("/")[0]
    command_line = CommandLine(tmp_path, {"EVOMERGE_HOME": home_of_study})
    process = command_line.start_afresh("study", "push", "tiny", NAME)
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert out.endswith(f" is at {hub.address}/{NAME}\n")
    assert TOKEN not in out + said
    process = command_line.start_afresh("study", "push", "tiny", "you/merged")
    out, said = process.communicate()
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("Error: you/merged: this token may not write there")
    assert [path for path in os.listdir(home_of_study) if path.startswith("push-")] == []
    assert hashlib.sha256(hub.repos[NAME].files["model.safetensors"]).hexdigest() in hub.lfs
