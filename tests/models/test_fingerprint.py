"""A checkpoint's fingerprint changes with each of its files."""

from pathlib import Path

from evomerge_optuna.models.fingerprint import fingerprint
from tests.conftest import save_tiny_model


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
