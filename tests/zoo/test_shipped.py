"""The zoo's files in the package: what is packed is unpacked, rounded to float16."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.zoo.shipped import digest, pack, unpack


def save(folder: Path, number: float, config: str = "{}") -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    (folder / "part").mkdir()
    weights = {"w": torch.full((2, 3), number), "ids": torch.arange(4)}
    save_file(weights, folder / "part" / "model.safetensors", {"format": "pt"})


def test_what_is_the_same_for_all_is_stored_once(tmp_path: Path) -> None:
    trained, shipped, out = (tmp_path / name for name in ("trained", "shipped", "out"))
    save(trained / "a", 1 / 3)
    save(trained / "b", 0.5)
    (trained / "b" / "extra.json").write_text("[]")
    pack(trained, ["a", "b"], shipped)
    files = {str(file.relative_to(shipped)) for file in shipped.rglob("*") if file.is_file()}
    own = {"a/part/model.safetensors", "b/part/model.safetensors", "b/extra.json"}
    assert files == {"common/config.json", *own}
    assert load_file(shipped / "a/part/model.safetensors")["w"].dtype == torch.float16

    unpack(shipped, ["a", "b"], out)
    for name in "ab":
        assert json.loads((out / name / "config.json").read_text()) == {}
        file = out / name / "part/model.safetensors"
        found, wanted = load_file(file), load_file(trained / name / "part/model.safetensors")
        assert torch.equal(found["w"], wanted["w"].half().float())
        assert torch.equal(found["ids"], wanted["ids"])
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    assert (out / "b/extra.json").exists() and not (out / "a/extra.json").exists()


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    save(tmp_path / "a", 1.0)
    save(tmp_path / "same", 1.0)
    save(tmp_path / "weights", 2.0)
    save(tmp_path / "config", 1.0, config="[]")
    save(tmp_path / "name", 1.0)
    (tmp_path / "name" / "config.json").rename(tmp_path / "name" / "other.json")
    assert digest(tmp_path / "a") == digest(tmp_path / "same")
    assert len({digest(folder) for folder in tmp_path.iterdir()}) == 4


def test_numbers_that_float16_cannot_hold(tmp_path: Path) -> None:
    save(tmp_path / "trained" / "a", 1e6)
    with pytest.raises(EvomergeError, match=r"w has numbers too large for torch\.float16"):
        pack(tmp_path / "trained", ["a"], tmp_path / "shipped")
