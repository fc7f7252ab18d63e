"""Models that do not fit are named from their configs alone, before any weight is read.

Covers families.base, families.fit and models.tokens, too.
"""

from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, LlamaConfig, MllamaConfig, T5Config

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.vision_language.text_part import VISION_MODELS
from tests.checked import checked
from tests.conftest import LAYERS, SpecMaker, save_tiny_model


def test_models_that_fit(make_spec: SpecMaker) -> None:
    found = checked(make_spec())
    assert found.name == "LlamaForCausalLM"
    assert found.layers == dict.fromkeys(("base_model", "models.a", "models.b"), LAYERS)
    assert found.parameters > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 3}, "models.b: layers 3, but base_model has 4"),
        ({"hidden_size": 32}, "models.b: hidden size 32, but base_model has 16"),
        ({"intermediate_size": 8}, "models.b: MLP size 8, but base_model has 32"),
        ({"vocab_size": 40}, "models.b: vocabulary of 40 tokens, but base_model has 19; set merge"),
        ({"dtype": "bfloat16"}, "models.b: dtype bfloat16, but base_model has float32; set merge"),
        (
            {"attention_bias": True},
            "models.b: tensor model.layers.0.self_attn.q_proj.bias has shape (16,)",
        ),
    ],
)
def test_a_model_of_another_shape(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    other = save_tiny_model(tmp_path / "other", 9, **config)
    for file in other.glob("*.safetensors"):
        file.write_bytes(b"never read")
    with pytest.raises(SpecError) as error:
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(other)}))
    assert str(error.value).startswith(message)


def test_another_tokenizer_of_the_same_size(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other", 9)
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"word3"', '"wort3"'))
    with pytest.raises(SpecError, match="first difference: 'word3'"):
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(other)}))


def test_a_vocabulary_that_mergekit_is_told_to_match(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other", 9, vocab_size=40)
    models = {"a": str(tiny / "a"), "b": str(other)}
    checked(make_spec(models=models, merge={"method": "ties", "tokenizer_source": "base"}))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nowhere/at/all", "models.b: there is no folder /nowhere/at/all; correct the path"),
        ("zoo:sub", "models.b: the zoo has no model 'zoo:sub'; it has zoo:base"),
    ],
)
def test_a_missing_model(make_spec: SpecMaker, tiny: Path, model: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        checked(make_spec(models={"a": str(tiny / "a"), "b": model}))
    assert str(error.value).startswith(message)


def test_a_model_that_no_hub_gives(
    make_spec: SpecMaker, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match=r"^models\.b: 'nobody/nothing' is not a local folder"):
        checked(make_spec(models={"a": str(tiny / "a"), "b": "nobody/nothing"}))


def test_pickled_weights_are_refused(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", 9)
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(SpecError, match="pickled ones are refused"):
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(other)}))


def test_a_corrupt_config(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", 9)
    (other / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(SpecError, match="its configuration cannot be read") as error:
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(other)}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (T5Config(), "T5ForConditionalGeneration"),
        (MllamaConfig(), "MllamaForConditionalGeneration"),
        (BertConfig(), "BertForMaskedLM"),
        (LlamaConfig(num_hidden_layers=0), "LlamaForCausalLM"),
        (LlamaConfig(), None),
    ],
    ids=["encoder-decoder", "several modalities", "encoder", "no layers", "no architecture"],
)
def test_what_is_no_causal_language_model(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, config: Any, architecture: str | None
) -> None:
    other = save_tiny_model(tmp_path / "other", 9)
    config.architectures = architecture and [architecture]
    config.save_pretrained(other)
    with pytest.raises(SpecError) as error:
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(other)}))
    assert str(error.value) == (
        f"models.b: {architecture or 'llama'} is no causal language model of text alone; "
        "only such models can be merged, and vision-language models of type "
        f"{', '.join(VISION_MODELS)}, diffusion pipelines of type diffusers"
    )


def test_a_config_that_gives_no_model(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", 9)
    file = other / "config.json"
    file.write_text(file.read_text().replace('"silu"', '"slu"'))
    with pytest.raises(SpecError, match=r"^models\.b: its configuration gives no model: .*slu"):
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(other)}))


def test_a_device_that_is_not_there(make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(SpecError, match=r"^evaluation\.device: .*; write cpu or auto$"):
        checked(make_spec(evaluation={"device": "cuda"}))


def test_only_the_first_model_needs_a_tokenizer(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path
) -> None:
    bare = save_tiny_model(tmp_path / "bare", 9)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    models = {"a": str(tiny / "a"), "bare": str(bare)}
    checked(make_spec(models=models))
    with pytest.raises(SpecError, match=r"^base_model: the tokenizer of .* cannot be read"):
        checked(make_spec(base_model=str(bare), models={"a": str(tiny / "a")}))
    turned = dict(reversed(models.items()))
    with pytest.raises(SpecError, match=r"^models\.bare: the tokenizer of .* cannot be read"):
        checked(make_spec(base_model=None, models=turned, merge={"method": "linear"}))


def test_a_tokenizer_that_cannot_pad(make_spec: SpecMaker, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", 9)
    (other / "tokenizer_config.json").unlink()
    with pytest.raises(SpecError, match=r"^base_model: .* has neither a padding nor an end-of"):
        checked(make_spec(base_model=str(other)))


def test_ids_beyond_the_embedding(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", 9, vocab_size=18)
    matched = {"method": "ties", "tokenizer_source": "union"}
    models = {"a": str(tiny / "a"), "b": str(other)}
    with pytest.raises(SpecError) as error:
        checked(make_spec(models=models, merge=matched))
    assert str(error.value).startswith(
        f"models.b: the tokenizer of {other} has the token 'word15' with id 18, but the model's "
        "embedding has 18 rows; resize it (model.resize_token_embeddings(19))"
    )
    with pytest.raises(SpecError, match=r"^base_model: the tokenizer .* with id 18"):
        checked(make_spec(base_model=str(other)))


def test_rows_beyond_the_tokenizer(make_spec: SpecMaker, tmp_path: Path) -> None:
    base, a = (save_tiny_model(tmp_path / n, 9, vocab_size=32) for n in ("base", "a"))
    checked(make_spec(base_model=str(base), models={"a": str(a)}))


def test_groups_that_match_nothing(make_spec: SpecMaker) -> None:
    with pytest.raises(SpecError, match="no tensor's name contains 'attn2'"):
        checked(make_spec(merge={"method": "ties", "layer_groups": ["attn2"]}))
    with pytest.raises(SpecError, match="'self_attn' matches is taken by an earlier filter"):
        checked(make_spec(merge={"method": "ties", "layer_groups": ["attn", "self_attn"]}))
    checked(make_spec(merge={"method": "ties", "layer_groups": ["q_proj", "self_attn"]}))
    with pytest.raises(SpecError, match="5 is more than the models' 4 layers"):
        checked(make_spec(merge={"method": "ties", "layer_group_size": 5}))
