"""A model in another dtype is the one that would be loaded in it."""

from pathlib import Path

import torch

from evomerge_optuna.models.loading import in_dtype, load_model, on_device
from tests.conftest import save_tiny_model


def test_in_dtype(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tied", 0, tie_word_embeddings=True)
    model, _ = load_model(folder, "cpu")
    before = {name: p.clone() for name, p in model.named_parameters()}
    cast, (wanted, _) = in_dtype(model, "bfloat16"), load_model(folder, "cpu", "bfloat16")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(cast(ids).logits, wanted(ids).logits)
    assert cast.dtype == torch.bfloat16
    assert cast.lm_head.weight is cast.get_input_embeddings().weight
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert in_dtype(model, "float32") is model


def test_on_another_device(tmp_path: Path) -> None:
    """The device meta stands for any other: it takes what is copied there, but for the values."""
    model, _ = load_model(save_tiny_model(tmp_path / "a", 0, tie_word_embeddings=True), "cpu")
    moved = on_device(model, "meta", "bfloat16")
    assert {p.device.type for p in moved.parameters()} == {"meta"}
    assert {b.device.type for b in moved.buffers()} == {"meta"}
    assert moved.dtype == torch.bfloat16
    assert moved.lm_head.weight is moved.model.embed_tokens.weight
    assert {(t.device.type, t.dtype) for t in model.parameters()} == {("cpu", torch.float32)}
    assert on_device(model, "cpu") is model
