"""Hashes know a changed byte, and do not care how tensors are spread over files."""

from pathlib import Path

import pytest
import torch

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.models.fingerprint import digest_files, fingerprint
from evomerge_optuna.models.shards import write_shards
from tests.conftest import save_tiny_model

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(2, dtype=torch.bfloat16),
    "c": torch.tensor(3.0),
    "d": torch.zeros(0, 4),
}


def folder_of(root: Path, name: str, *shards: dict[str, torch.Tensor]) -> Path:
    folder = root / name
    folder.mkdir()
    write_shards(folder, shards)
    return folder


def test_sharding_makes_no_difference(tmp_path: Path) -> None:
    whole = folder_of(tmp_path, "whole", TENSORS)
    split = folder_of(tmp_path, "split", *({name: TENSORS[name]} for name in reversed(TENSORS)))
    assert digest_files(whole) == digest_files(split)


@pytest.mark.parametrize(
    "change",
    [
        {"a": TENSORS["a"].reshape(3, 2)},
        {"a": TENSORS["a"].double()},
        {"b": torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)},
    ],
)
def test_shape_dtype_and_value_count(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    before = digest_files(folder_of(tmp_path, "before", TENSORS))
    assert digest_files(folder_of(tmp_path, "after", TENSORS | change)) != before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    folder = folder_of(tmp_path, "bad", TENSORS | {"a": torch.tensor([0.0, value])})
    with pytest.raises(CandidateError, match="tensor a has NaN or infinite values"):
        digest_files(folder)


def test_a_changed_weight_or_config_is_seen(tmp_path: Path, home: Path) -> None:
    model = save_tiny_model(tmp_path / "model", 0)
    before = fingerprint(model)
    assert fingerprint(model) == before
    save_tiny_model(model, 1)
    changed = fingerprint(model)
    assert changed.weights != before.weights
    assert changed.config == before.config
    config = model / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "silu"', '"hidden_act": "gelu"'))
    assert fingerprint(model).config != changed.config
