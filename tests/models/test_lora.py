"""What an adapter is: A and B alone, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from evomerge_optuna.models.lora import (
    base_modules,
    check_plain,
    check_values,
    layer_of,
    lora_headers,
    read_lora,
)
from evomerge_optuna.models.opened import OpenedModel
from tests.adapters import save_base, save_lora


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"use_dora": True}, r"has magnitudes of weights beside A and B \(DoRA\)"),
        ({"modules_to_save": ["lm_head"]}, "has whole modules beside A and B"),
        ({"bias": "all"}, "changes biases of the base model"),
        ({"lora_bias": True}, "has biases beside A and B"),
        ({"trainable_token_indices": [1, 2]}, "has tokens beside A and B"),
    ],
)
def test_more_than_a_and_b_is_refused(
    given: dict[str, Any], words: str, base: Path, tmp_path: Path
) -> None:
    save_lora(tmp_path, base, 0, ["q_proj"], **given)
    with pytest.raises(SpecError, match=f"^models.x: {words}.*leave merge.space out"):
        check_plain(tmp_path, "models.x")


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_4", "olora", "loftq", "corda"])
def test_a_training_that_changed_the_base_is_refused(
    begun: str, base: Path, tmp_path: Path
) -> None:
    save_lora(tmp_path, base, 0, ["q_proj"])
    file = tmp_path / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": begun}))
    with pytest.raises(SpecError, match=f"was begun by {begun}, which changes the base model's"):
        check_plain(tmp_path, "models.x")


@pytest.mark.parametrize(
    "config",
    [
        lambda: IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
        lambda: LoHaConfig(target_modules=["q_proj"]),
        lambda: PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    ],
    ids=["IA3", "LOHA", "PROMPT_TUNING"],
)
def test_other_kinds_of_adapters_are_refused(
    config: Callable[[], Any], base: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, config()).save_pretrained(tmp_path)
    kind = request.node.callspec.id
    with pytest.raises(SpecError, match=f"of type '{kind}' has no A and B to merge"):
        check_plain(tmp_path, "models.x")


def test_headers_and_tensors_are_peft_s(base: Path, tmp_path: Path) -> None:
    modules = ["q_proj", "embed_tokens", "lm_head"]
    save_lora(
        tmp_path,
        base,
        0,
        modules,
        r=3,
        lora_alpha=6,
        rank_pattern={"layers.1.self_attn.q_proj": 5},
        alpha_pattern={"lm_head": 12},
    )
    headers = lora_headers(tmp_path, "x")
    assert headers["lm_head"].scaling == 4.0
    wide = headers["model.layers.1.self_attn.q_proj"]
    assert (wide.rank, wide.scaling) == (5, 6 / 5)
    assert headers["model.embed_tokens"].is_embedding
    assert headers["model.embed_tokens"].inputs == 19
    for module, halves in read_lora(tmp_path):
        header = headers[module]
        assert halves.a.shape == (header.rank, header.inputs)
        assert halves.b.shape == (header.outputs, header.rank)
    check_values(tmp_path, base, "x")  # with the embeddings that peft saves, which are the base's


def test_embeddings_of_its_own_and_numbers_that_are_none_are_refused(
    base: Path, tmp_path: Path
) -> None:
    save_lora(tmp_path, base, 0, ["q_proj", "embed_tokens"])
    file = tmp_path / ADAPTER_WEIGHTS
    saved = load_file(file)
    (whole,) = (name for name in saved if "lora_" not in name)
    save_file(saved | {whole: saved[whole] + 1}, file)
    with pytest.raises(SpecError, match=f"has a tensor {whole} beside A and B that is not the"):
        check_values(tmp_path, base, "x")
    name = next(name for name in saved if "lora_B" in name)
    save_file(saved | {name: torch.full_like(saved[name], torch.nan)}, file)
    with pytest.raises(SpecError, match="has NaN or infinite values"):
        check_values(tmp_path, base, "x")


def test_embeddings_that_the_base_s_files_call_otherwise_are_the_base_s(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gpt_neox")
    assert "embed_out.weight" in load_file(base / "model.safetensors")
    save_lora(tmp_path / "x", base, 0, ["lm_head", "embed_in"])
    whole = {name for name in load_file(tmp_path / "x" / ADAPTER_WEIGHTS) if "lora_" not in name}
    assert "base_model.model.lm_head.base_layer.weight" in whole
    check_values(tmp_path / "x", base, "x")


def test_names_that_peft_does_not_load_are_refused(base: Path, tmp_path: Path) -> None:
    """As a state dict of a model has them, with the adapter's name in them."""
    save_lora(tmp_path, base, 0, ["q_proj"])
    file = tmp_path / ADAPTER_WEIGHTS
    named = {k.replace(".weight", ".default.weight"): v for k, v in load_file(file).items()}
    save_file(named, file)
    words = r"x: peft does not load the tensor .*q_proj.lora_A.default.weight.*save it anew with"
    with pytest.raises(SpecError, match=words):
        check_plain(tmp_path, "x")


def test_files_that_are_broken_are_told(base: Path, tmp_path: Path) -> None:
    save_lora(tmp_path, base, 0, ["q_proj"])
    file = tmp_path / ADAPTER_WEIGHTS
    saved = load_file(file)
    half = next(name for name in saved if "lora_A" in name)
    save_file({k: v for k, v in saved.items() if k != half}, file)
    with pytest.raises(SpecError, match=r"A and B of .* have the shapes \[\] and"):
        check_plain(tmp_path, "x")
    file.write_bytes(b"nothing")
    with pytest.raises(SpecError, match=r"adapter_model.safetensors cannot be read"):
        check_plain(tmp_path, "x")
    (tmp_path / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(SpecError, match=r"adapter_config.json cannot be read"):
        check_plain(tmp_path, "x")


def test_modules_are_in_the_order_of_the_model(tmp_path: Path) -> None:
    found = base_modules(OpenedModel(str(save_base(tmp_path, "gpt2"))).config, "x")
    assert found.places["transformer.wte"] < found.places["transformer.h.0.attn.c_attn"]
    assert found.places["transformer.h.2.mlp.c_fc"] < found.places["lm_head"]
    assert "transformer.h.1.mlp.c_proj" in found.transposed
    assert "lm_head" not in found.transposed


def test_the_layer_of_a_module() -> None:
    assert layer_of("model.layers.11.mlp.experts.3.w1") == 11
    assert layer_of("transformer.h.0.attn.c_attn") == 0
    assert layer_of("lm_head") is None
