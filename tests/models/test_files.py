"""A checkpoint's files are one model, and not quantized: seen from indexes and headers alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.catalog import check_exists
from evomerge_optuna.models.shards import INDEX
from tests.checked import checked
from tests.conftest import SpecMaker

PROJECTION = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def sharded(tiny: Path, tmp_path: Path) -> Path:
    """Model b in several files with an index."""
    folder = Path(shutil.copytree(tiny / "b", tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(tiny / "b").save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def refusal(make_spec: SpecMaker, tiny: Path, model: Path) -> str:
    with pytest.raises(SpecError) as error:
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(model)}))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_shards_and_their_index(make_spec: SpecMaker, tiny: Path, sharded: Path) -> None:
    checked(make_spec(models={"a": str(tiny / "a"), "b": str(sharded)}))


def test_an_index_beside_a_single_file(make_spec: SpecMaker, tiny: Path, sharded: Path) -> None:
    shutil.copy(tiny / "a" / "model.safetensors", sharded)
    message = refusal(make_spec, tiny, sharded)
    assert message.startswith(f"models.b: {sharded}: model.safetensors and {INDEX} are two models")
    with pytest.raises(SpecError, match=r"^MODEL: .* two models in one folder"):
        check_exists(str(sharded), "MODEL")  # as evaluate does


def test_an_index_of_the_single_file(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny / "b", tmp_path / "one"))
    names = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model.safetensors")}
    (folder / INDEX).write_text(json.dumps(index))
    checked(make_spec(models={"a": str(tiny / "a"), "b": str(folder)}))


def test_an_index_that_names_what_is_not_there(
    make_spec: SpecMaker, tiny: Path, sharded: Path
) -> None:
    first = min(sharded.glob("model-*.safetensors"))
    first.unlink()
    assert f"{INDEX} names {first.name}, which is not there" in refusal(make_spec, tiny, sharded)


@pytest.mark.parametrize("change", ["left out", "another file", "too many"])
def test_an_index_of_other_shards(
    make_spec: SpecMaker, tiny: Path, sharded: Path, change: str
) -> None:
    index = json.loads((sharded / INDEX).read_text())
    places = index["weight_map"]
    name = min(places)
    if change == "left out":
        del places[name]
    elif change == "another file":
        places[name] = next(file for file in places.values() if file != places[name])
    else:
        name = "model.zzz"
        places[name] = next(iter(places.values()))
    (sharded / INDEX).write_text(json.dumps(index))
    message = refusal(make_spec, tiny, sharded)
    assert message.startswith(f"models.b ({sharded}): tensor {name} is in ")
    assert f"but {INDEX} has it in" in message


def with_tensors(tiny: Path, folder: Path, **tensors: torch.Tensor) -> Path:
    """Model b with other tensors of one projection."""
    shutil.copytree(tiny / "b", folder)
    file = folder / "model.safetensors"
    found = load_file(file)
    del found[f"{PROJECTION}.weight"]
    found |= {f"{PROJECTION}.{name}": tensor for name, tensor in tensors.items()}
    save_file(found, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("weight", torch.zeros(128, 1, dtype=torch.uint8)),  # bitsandbytes, 4 bits
        ("weight", torch.zeros(16, 16, dtype=torch.int8)),  # bitsandbytes, 8 bits
        ("weight", torch.zeros(16, 16).to(torch.float8_e4m3fn)),
        ("qweight", torch.zeros(2, 16, dtype=torch.int32)),  # GPTQ, AWQ
        ("weight_packed", torch.zeros(16, 2, dtype=torch.int32)),  # compressed-tensors
    ],
)
def test_quantized_tensors(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, name: str, tensor: torch.Tensor
) -> None:
    model = with_tensors(tiny, tmp_path / "quantized", **{name: tensor})
    message = refusal(make_spec, tiny, model)
    assert message.startswith(f"models.b ({model}): tensor {PROJECTION}.{name} is ")
    assert "dequantize first" in message


def test_integers_that_are_buffers(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    """Masks of GPT-NeoX and positions are stored as integers."""
    whole = load_file(tiny / "b" / "model.safetensors")[f"{PROJECTION}.weight"]
    mask = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    model = with_tensors(tiny, tmp_path / "masked", weight=whole, bias=mask)
    checked(make_spec(models={"a": str(tiny / "a"), "b": str(model)}))


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ],
)
def test_a_configuration_of_quantized_weights(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path, settings: dict[str, object], method: str
) -> None:
    model = Path(shutil.copytree(tiny / "b", tmp_path / "quantized"))
    config = json.loads((model / "config.json").read_text()) | {"quantization_config": settings}
    (model / "config.json").write_text(json.dumps(config))
    message = refusal(make_spec, tiny, model)
    assert message.startswith(f"models.b: {model}: config.json says {method}; quantized weights")
