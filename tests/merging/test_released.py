"""A released DFS model becomes a plain Mistral checkpoint that computes the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MistralConfig, MistralForCausalLM

from evomerge_optuna.errors import ExportError, UsageError
from evomerge_optuna.merging.released import import_released
from evomerge_optuna.models.loading import load_model
from tests.conftest import save_tiny_model

HOPS = [0, 1, 2, 2, 0, 1]
SCALES = [1.0, 0.9, 1.2, 0.7, 1.1, 0.8]


def save_released(folder: Path, hops: list[int] = HOPS, **config: Any) -> Path:
    """Three layers, six hops, in the names of the release."""
    save_tiny_model(folder, 0)  # its tokenizer
    torch.manual_seed(4)
    plain = MistralConfig(
        vocab_size=19, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, eos_token_id=1,
        bos_token_id=None, sliding_window=None, rms_norm_eps=1e-12,
    )  # fmt: skip
    MistralForCausalLM(plain).save_pretrained(folder)
    weights, settings = folder / "model.safetensors", folder / "config.json"
    extra = {
        "model.input_layers": torch.tensor(hops),
        "model.input_scales": torch.tensor(SCALES[: len(hops)]),
    }
    save_file(load_file(weights) | extra, weights, metadata={"format": "pt"})
    content = json.loads(settings.read_text()) | {
        "model_type": "evomistral",
        "architectures": ["EvoMistralForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_evomistral.EvoMistralForCausalLM"},
        "num_hops": len(hops),
        **config,
    }
    settings.write_text(json.dumps(content))
    return folder


def as_released(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What the release's code computes: h = layer(scale * h), hop after hop."""
    content = json.loads((folder / "config.json").read_text())
    for key in ("auto_map", "num_hops", "model_type", "architectures"):
        content.pop(key)
    model = MistralForCausalLM(MistralConfig(**content)).eval()
    tensors = load_file(folder / "model.safetensors")
    hops, scales = (tensors.pop(f"model.input_{name}") for name in ("layers", "scales"))
    model.load_state_dict(tensors)
    hidden = model.model.embed_tokens(ids)
    places = torch.arange(ids.shape[1])[None]
    rotary = model.model.rotary_emb(hidden, places)
    for hop, scale in zip(hops.tolist(), scales.tolist(), strict=True):
        hidden = model.model.layers[hop](
            hidden * scale, attention_mask=None, position_ids=places, position_embeddings=rotary
        )
    return model.lm_head(model.model.norm(hidden))


def test_the_same_logits_without_its_code(tmp_path: Path) -> None:
    released = save_released(tmp_path / "released")
    recipe = import_released(released, tmp_path / "out")
    assert [step.layer for step in recipe.steps] == HOPS
    assert [step.scale for step in recipe.steps] == pytest.approx(SCALES)
    model, tokenizer = load_model(tmp_path / "out", "cpu")
    assert (type(model), model.config.num_hidden_layers) == (MistralForCausalLM, len(HOPS))
    assert tokenizer.get_vocab()
    ids = torch.tensor([[3, 4, 5, 6, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(
            model(ids).logits, as_released(released, ids), rtol=1e-3, atol=1e-4
        )


def test_what_is_no_released_model(tmp_path: Path) -> None:
    plain = save_tiny_model(tmp_path / "plain", 0)
    with pytest.raises(UsageError, match=r"config\.json has no num_hops"):
        import_released(plain, tmp_path / "out")
    with pytest.raises(UsageError, match="num_hops is 7 in config"):
        import_released(save_released(tmp_path / "seven", num_hops=7), tmp_path / "out")
    with pytest.raises(UsageError, match="a step takes layer 3, but 3 are stored"):
        import_released(save_released(tmp_path / "three", hops=[0, 3]), tmp_path / "out")
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        import_released(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="plain exists; an export never"):
        import_released(save_released(tmp_path / "good"), plain)
    with pytest.raises(ExportError, match="Not a directory; nothing was exported"):
        import_released(tmp_path / "good", plain / "config.json" / "out")
