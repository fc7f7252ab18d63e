"""Hub ids, folders and zoo names; the hub itself is stood in for.

Covers models.opened, models.sources.base, models.sources.hub and models.sources.path, too.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.catalog import (
    check_exists,
    local_folder,
)
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.sources import source_of


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("organisation/model", ("organisation/model", None)),
        ("organisation/model@v1.0", ("organisation/model", "v1.0")),
        ("/models/a@b", ("/models/a@b", None)),
        ("~nosuchuser/a", ("~nosuchuser/a", None)),
    ],
)
def test_source_of(model: str, source: tuple[str, str | None]) -> None:
    assert source_of(model).location(model) == source
    assert OpenedModel(model).is_on_hub is model.startswith("organisation")


def test_a_revision_reaches_the_hub(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    asked: list[tuple[str, str]] = []

    def give(result: Any) -> Any:
        def from_hub(name: str, *, revision: str, **_: Any) -> Any:
            asked.append((name, revision))
            return result

        return from_hub

    tokenizer = OpenedModel(str(tiny / "a"), "models.a").tokenizer
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", give("config"))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", give(tokenizer))
    monkeypatch.setattr("huggingface_hub.snapshot_download", give(str(tiny / "a")))
    opened = OpenedModel("o/m@v1", "models.a")
    assert opened.config == "config"
    assert opened.tokenizer is tokenizer
    assert local_folder("o/m@v1") == tiny / "a"
    assert asked == [("o/m", "v1")] * 3


def test_pickled_weights_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(SpecError, match=r"^o/m has no \*\.safetensors .*with save_pretrained$"):
        local_folder("o/m")


def test_downloads_lie_where_mergekit_reads_them(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny / "a", tmp_path / "user@host")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(SpecError, match="set HF_HOME to another folder"):
        local_folder("o/m")


@pytest.mark.parametrize("model", ["~nosuchuser/x", "/" + "x" * 5000])
def test_a_path_that_cannot_be(model: str) -> None:
    with pytest.raises(SpecError, match=r"^models\.a: there is no folder"):
        check_exists(model, "models.a")


def test_a_name_too_long_for_a_path_may_be_a_hub_id() -> None:
    assert OpenedModel("x" * 5000).is_on_hub


def test_a_tokenizer_of_special_tokens_alone_is_none(tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=r"^models\.a: .* has no tokenizer; name a model with"):
        _ = OpenedModel(str(tmp_path), "models.a").tokenizer


@pytest.mark.parametrize("name", ["a@b", "a+b"])
def test_a_folder_that_mergekit_would_read_as_something_else(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(tiny / "a", tmp_path / name))
    with pytest.raises(SpecError, match=r"models\.a: .* rename the folder"):
        check_exists(str(folder), "models.a")


def test_the_zoo_model_of_an_adapter(home: Path) -> None:
    name = "zoo:vlm-base+./adapter"
    assert source_of(name).location(name) == (str(local_folder("zoo:vlm-base")), None)


def test_a_processor_without_pillow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # as where it is not installed
    with pytest.raises(SpecError, match=r"images need Pillow: pip install"):
        _ = OpenedModel("zoo:vlm").processor


def test_code_beside_a_model_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass C: pass\n")
    (tmp_path / "model.safetensors").touch()
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecError, match="configuration cannot be read"):
        _ = OpenedModel(str(tmp_path), "models.a").config
    assert not ran.exists()
