"""Weights that cannot be merged are refused before the search, by model and tensor."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.weights import check_weights
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.spec import StudySpec
from tests.conftest import SpecMaker, save_tiny_model

NORM = "model.layers.1.input_layernorm.weight"
EMBEDDING = "model.embed_tokens.weight"


def weights_checked(spec: StudySpec) -> None:
    check_weights(spec, OpenedModels(spec.model_ids()))


def changed_copy(tmp_path: Path, tiny: Path, name: str, tensor: torch.Tensor) -> str:
    """A copy of model b in which one tensor is another."""
    folder = save_tiny_model(tmp_path / "changed", 2, tiny / "base")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    assert name in tensors
    save_file(tensors | {name: tensor}, file, metadata={"format": "pt"})
    return str(folder)


def refusal(make_spec: SpecMaker, tiny: Path, model: str, **merge: str) -> str:
    models = {"a": str(tiny / "a"), "b": model}
    with pytest.raises(SpecError) as error:
        weights_checked(make_spec(models=models, merge={"method": "ties", **merge}))
    return str(error.value)


def test_sound_weights(make_spec: SpecMaker) -> None:
    weights_checked(make_spec())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, value: float
) -> None:
    model = changed_copy(tmp_path, tiny, NORM, torch.tensor([1.0] * 15 + [value]))
    found = refusal(make_spec, tiny, model)
    assert found.startswith(f"models.b ({model}): tensor {NORM} has NaN or infinite values")


def test_one_tensor_of_another_shape(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    model = changed_copy(tmp_path, tiny, NORM, torch.ones(15))
    found = refusal(make_spec, tiny, model)
    assert found.startswith(f"models.b ({model}): tensor {NORM} has shape [15], but in base_model")
    assert "[16]" in found


def test_rows_may_differ_only_where_mergekit_matches_vocabularies(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path
) -> None:
    model = changed_copy(tmp_path, tiny, EMBEDDING, torch.ones(25, 16))
    assert f"tensor {EMBEDDING} has shape [25, 16]" in refusal(make_spec, tiny, model)
    models = {"a": str(tiny / "a"), "b": model}
    save_tiny_model(Path(model), 2, vocab_size=25)
    weights_checked(make_spec(models=models, merge={"method": "ties", "tokenizer_source": "base"}))


def test_quantized_weights(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    model = changed_copy(tmp_path, tiny, NORM, torch.ones(16).to(torch.float8_e4m3fn))
    assert f"tensor {NORM} is float8_e4m3fn; quantized" in refusal(make_spec, tiny, model)


def test_a_file_that_is_cut_short(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    model = changed_copy(tmp_path, tiny, NORM, torch.ones(16))
    file = Path(model) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors cannot be read" in refusal(make_spec, tiny, model)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("missing", f"has no tensor {NORM}, which its architecture needs"),
        ("unknown", "has a tensor v_head.weight, for which its architecture has no place"),
    ],
)
def test_tensors_that_are_not_those_of_the_models_class(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, wrong: str, told: str
) -> None:
    model = changed_copy(tmp_path, tiny, NORM, torch.ones(16))
    file = Path(model) / "model.safetensors"
    tensors = load_file(file)
    if wrong == "missing":
        del tensors[NORM]
    else:
        tensors["v_head.weight"] = torch.ones(1, 16)
    save_file(tensors, file, metadata={"format": "pt"})
    assert f"models.b ({model}) {told}" in refusal(make_spec, tiny, model)


def test_a_bias_that_the_configuration_says_and_the_files_lack(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path
) -> None:
    model = changed_copy(tmp_path, tiny, NORM, torch.ones(16))
    config = AutoConfig.from_pretrained(model)
    config.attention_bias = True
    config.save_pretrained(model)
    found = refusal(make_spec, tiny, model)
    assert "has no tensor model.layers.0.self_attn.k_proj.bias (and" in found
