"""Whatever peft can save of an adapter, merged it answers as the adapter on its base model does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models import adapted
from evomerge_optuna.models.catalog import (
    check_exists,
    local_folder,
)
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.scoring import score_checkpoint
from tests.checked import checked
from tests.conftest import SpecMaker, save_tiny_model

ROWS = 19
ADDED = ["<one>", "<two>"]
ATTENTION = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with tied embeddings and without; answers differ from each other."""
    root = tmp_path_factory.mktemp("bases")
    for name, tied in (("tied", True), ("untied", False)):
        settings = {"num_hidden_layers": 2, "initializer_range": 0.5}
        save_tiny_model(root / name, 0, tie_word_embeddings=tied, **settings)
    return root


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """BOFT would compile for minutes where it finds CUDA's."""
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: None)


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": ATTENTION, "task_type": "CAUSAL_LM", **settings})


def save(base: Path, folder: Path, settings: Any, added: bool = False, **saving: Any) -> Any:
    """Saves an adapter with every trained value moved, and gives its logits on its base model."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    if added:
        model.resize_token_embeddings(ROWS + len(ADDED))
    live = get_peft_model(model, settings).eval()
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    live.save_pretrained(folder, **saving)
    if added:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(ADDED)
        tokenizer.save_pretrained(folder)
    return logits(live)


def logits(model: Any) -> torch.Tensor:
    rows = model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(rows)[None]).logits
    return found


KINDS: dict[str, Callable[[], Any]] = {
    "LoRA everywhere": lambda: lora(target_modules="all-linear"),
    "rsLoRA": lambda: lora(use_rslora=True),
    "DoRA": lambda: lora(use_dora=True),
    "PiSSA": lambda: lora(init_lora_weights="pissa"),
    "ranks by module": lambda: lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32}),
    "biases": lambda: lora(bias="all"),
    "a norm in full": lambda: lora(modules_to_save=["norm"]),
    "both ends in full": lambda: lora(modules_to_save=["embed_tokens", "lm_head"]),
    "embeddings in full": lambda: lora(modules_to_save=["embed_tokens"]),
    "the head in full": lambda: lora(modules_to_save=["lm_head"]),
    "embeddings in full, tied": lambda: lora(
        modules_to_save=["embed_tokens"], ensure_weight_tying=True
    ),
    "LoRA of the head": lambda: lora(target_modules=["q_proj", "lm_head"]),
    "LoRA of embeddings": lambda: lora(target_modules=["q_proj", "embed_tokens"]),
    "LoRA of both ends": lambda: lora(target_modules=["embed_tokens", "lm_head"]),
    "LoRA of embeddings, tied": lambda: lora(
        target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True
    ),
    "a few tokens": lambda: lora(trainable_token_indices=[5, 7]),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    ),
    "LoHa": lambda: peft.LoHaConfig(r=4, target_modules=ATTENTION, task_type="CAUSAL_LM"),
    "LoKr": lambda: peft.LoKrConfig(r=4, target_modules=ATTENTION, task_type="CAUSAL_LM"),
    "BOFT": lambda: peft.BOFTConfig(
        boft_block_size=4, target_modules=ATTENTION, task_type="CAUSAL_LM"
    ),
}  # fmt: skip
# Where an adapter moves either end alone, they are no longer tied.
APART = {
    *("both ends in full", "embeddings in full", "the head in full"),
    *("LoRA of the head", "LoRA of embeddings", "LoRA of both ends"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["tied", "untied"])
def test_merged_it_answers_alike(
    bases: Path, tmp_path: Path, home: Path, base: str, kind: str
) -> None:
    wanted = save(bases / base, tmp_path / "x", KINDS[kind]())
    folder = local_folder(f"{bases / base}+{tmp_path / 'x'}")
    merged = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(wanted, logits(AutoModelForCausalLM.from_pretrained(bases / base)))
    torch.testing.assert_close(logits(merged), wanted, atol=1e-3, rtol=1e-3)
    assert merged.config.tie_word_embeddings is (base == "tied" and kind not in APART)


@pytest.mark.parametrize("added", [False, True], ids=["the same tokens", "added tokens"])
@pytest.mark.parametrize(
    ("base", "settings"),
    [
        ("tied", {}),
        ("untied", {}),
        ("tied", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("untied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("tied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("tied", {"trainable_token_indices": [17, 18]}),
    ],
)
def test_whole_embeddings_beside_it(
    make_spec: SpecMaker,
    bases: Path,
    tmp_path: Path,
    home: Path,
    base: str,
    settings: dict[str, Any],
    added: bool,
) -> None:
    wanted = save(bases / base, tmp_path / "x", lora(**settings), added, save_embedding_layers=True)
    model = f"{bases / base}+{tmp_path / 'x'}"
    folder = local_folder(model)
    merged = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(merged), wanted, atol=1e-3, rtol=1e-3)
    assert (
        len(AutoTokenizer.from_pretrained(folder)) == merged.config.vocab_size == ROWS + 2 * added
    )
    matched = {"method": "ties", **({"tokenizer_source": "union"} if added else {})}
    checked(make_spec(base_model=str(bases / base), models={"x": model}, merge=matched))


def test_added_tokens_that_are_not_saved(
    make_spec: SpecMaker, bases: Path, tmp_path: Path, home: Path
) -> None:
    save(bases / "untied", tmp_path / "x", lora(), added=True, save_embedding_layers=False)
    model = f"{bases / 'untied'}+{tmp_path / 'x'}"
    message = f"the tokenizer of {model} has the token '<one>' with id 19, but the model's emb"
    spec = make_spec(base_model=str(bases / "untied"), models={"x": model})
    for key, ask in (
        ("models.x", lambda: checked(spec)),
        ("MODEL", lambda: score_checkpoint(model, spec, "test")),
    ):
        with pytest.raises(SpecError) as error:
            ask()
        assert str(error.value).startswith(f"{key}: {message}")


def test_half_of_the_added_rows(
    make_spec: SpecMaker, bases: Path, tmp_path: Path, home: Path
) -> None:
    """Of a base model with a head of its own peft saves that of the embeddings alone."""
    both = ["q_proj", "embed_tokens"]
    save(bases / "untied", tmp_path / "x", lora(target_modules=both), added=True)
    model = f"{bases / 'untied'}+{tmp_path / 'x'}"
    with pytest.raises(
        SpecError, match=r"^models\.x: .* if it added tokens, merge it where it was"
    ):
        checked(make_spec(base_model=str(bases / "untied"), models={"x": model}))


def test_the_tokenizer_beside_it(bases: Path, tmp_path: Path, home: Path) -> None:
    save(bases / "tied", tmp_path / "x", lora())
    model = f"{bases / 'tied'}+{tmp_path / 'x'}"
    before, folder = OpenedModel(model).fingerprint, local_folder(model)
    assert OpenedModel(model, "x").tokenizer.chat_template is None
    tokenizer = AutoTokenizer.from_pretrained(bases / "tied")
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "x")
    assert OpenedModel(model).fingerprint.tokenizer != before.tokenizer
    assert local_folder(model) != folder
    assert digest_files(local_folder(model)) == digest_files(folder)
    for read in (
        OpenedModel(model, "x").tokenizer,
        AutoTokenizer.from_pretrained(local_folder(model)),
    ):
        assert read.chat_template == tokenizer.chat_template


def test_what_answers_otherwise_is_refused_with_what_peft_said(
    bases: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(bases / "tied", tmp_path / "x", KINDS["LoRA of the head"]())
    monkeypatch.setattr(adapted, "_untie", lambda model: None)
    with pytest.raises(SpecError) as error:
        local_folder(f"{bases / 'tied'}+{tmp_path / 'x'}")
    assert "merged by peft it answers otherwise than the adapter on its base mo" in str(error.value)
    assert "it warned: Model with `tie_word_embeddings=True` and the tied_target_mod" in str(
        error.value
    )
    assert not list(home.glob("models/adapter-*/"))


def test_what_peft_says_when_it_loads_is_a_reason(
    bases: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(bases / "tied", tmp_path / "x", lora())
    load = PeftModel.load_adapter

    def without_one(*arguments: Any, **settings: Any) -> Any:
        found = load(*arguments, **settings)
        found.missing_keys.append("q_proj.lora_A")
        return found

    monkeypatch.setattr(PeftModel, "load_adapter", without_one)
    with pytest.raises(SpecError, match="peft says: Found missing adapter keys while loading"):
        local_folder(f"{bases / 'tied'}+{tmp_path / 'x'}")


def test_an_adapter_of_a_quantized_model(
    make_spec: SpecMaker, bases: Path, tmp_path: Path, home: Path
) -> None:
    save(bases / "tied", tmp_path / "x", lora())
    base = Path(shutil.copytree(bases / "tied", tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    model = f"{base}+{tmp_path / 'x'}"
    check_exists(model, "models.x")
    for ask in (
        lambda: checked(make_spec(base_model=str(bases / "tied"), models={"x": model})),
        lambda: local_folder(model),
    ):
        with pytest.raises(SpecError, match=r"config\.json says bitsandbytes; quantized weights"):
            ask()
