"""The text part of a vision-language model is a plain model; the whole is put together again."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from evomerge_optuna.engines.costs import model_costs
from evomerge_optuna.engines.decoding import greedy, is_decodable
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.reading import reader_of
from evomerge_optuna.families import load_checkpoint, merged_folder
from evomerge_optuna.families.vision_language.text_part import (
    DECODERS,
    VISION_MODELS,
    is_text,
    text_config,
)
from evomerge_optuna.models.fingerprint import fingerprint
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.shards import read_tensors as tensors_of
from evomerge_optuna.models.shards import write_tensors
from tests.conftest import save_tiny_model
from tests.vision import read_tensors, save_tiny_llava, write_whole

IMAGE_ID = 18
_TEXT = {
    "vocab_size": 19, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None, "head_dim": 8, "rms_norm_eps": 1e-12,
}  # fmt: skip
_QWEN_TEXT = {k: v for k, v in _TEXT.items() if k != "head_dim"} | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
}
_TOWER = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 8, "patch_size": 4,
}  # fmt: skip
_CLIP = {"model_type": "clip_vision_model", **_TOWER}
_MISTRAL = {"model_type": "mistral", **_TEXT}
_INDEX: dict[str, Any] = {"image_token_index": IMAGE_ID}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {"model_type": "gemma3_text", **_TEXT},
        "vision_config": {"model_type": "siglip_vision_model", **_TOWER},
        "mm_tokens_per_image": 4,
        "image_token_id": IMAGE_ID,
    },
    "llava": {"text_config": _MISTRAL, "vision_config": _CLIP, **_INDEX},
    "llava_next": {"text_config": _MISTRAL, "vision_config": _CLIP, **_INDEX},
    "mistral3": {
        "text_config": _MISTRAL,
        "vision_config": {"model_type": "pixtral", **_TOWER},
        **_INDEX,
    },
    "qwen2_5_vl": {
        "text_config": _QWEN_TEXT,
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 16, "patch_size": 4,
        },
        "image_token_id": IMAGE_ID,
    },
    "qwen2_vl": {
        "text_config": _QWEN_TEXT,
        "vision_config": {
            "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4
        },
        "image_token_id": IMAGE_ID,
    },
    "vipllava": {
        "text_config": {"model_type": "llama", **_TEXT},
        "vision_config": _CLIP,
        "vision_feature_layers": [-1, -2],
        **_INDEX,
    },
}  # fmt: skip


def save_random(folder: Path, kind: str, tied: bool, **parts: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **CONFIGS[kind] | parts, tie_word_embeddings=tied)
    model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # some begin at zero
    model.save_pretrained(folder)
    words = save_tiny_model(folder.with_name("words"), 0)
    AutoTokenizer.from_pretrained(words).save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", VISION_MODELS)
def test_the_text_part_is_a_plain_model(home: Path, tmp_path: Path, kind: str, tied: bool) -> None:
    folder = tmp_path / "whole"
    whole = save_random(folder, kind, tied)
    text = merged_folder(str(folder))
    plain, _ = load_model(text, "cpu")
    ids = torch.arange(3, 9)[None]
    with torch.inference_mode():
        assert torch.equal(plain(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert is_decodable(whole, 10)
    prompts = [[3, 4], [3, 4, 5, 6], [7]]
    answers = [greedy(model, prompts, 6, 2, lambda _: False) for model in (plain, whole)]
    assert answers[0] == answers[1]
    costs = [model_costs(model) for model in (plain, whole)]
    assert all(costs[0][name] == costs[1][name] for name in ("layers", "flops_per_token"))
    assert costs[1]["parameters"] == whole.num_parameters()
    assert plain.config.architectures[0] == type(plain).__name__
    assert AutoConfig.from_pretrained(text).dtype == torch.float32
    assert merged_folder(str(folder)) == text  # written once
    assert merged_folder(str(text)) == text  # a text model is its own text part

    write_whole(folder, text, tmp_path / "again")
    before, after = read_tensors(folder), read_tensors(tmp_path / "again")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "again")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder(home: Path, tmp_path: Path, decoder: str) -> None:
    whole = save_random(
        tmp_path / "whole", "llava", tied=False, text_config={"model_type": decoder, **_TEXT}
    )
    plain, _ = load_model(merged_folder(str(tmp_path / "whole")), "cpu")
    assert plain.config.model_type == decoder
    ids = torch.arange(3, 9)[None]
    with torch.inference_mode():
        assert torch.equal(plain(input_ids=ids).logits, whole(input_ids=ids).logits)
    write_whole(tmp_path / "whole", merged_folder(str(tmp_path / "whole")), tmp_path / "again")
    before, after = read_tensors(tmp_path / "whole"), read_tensors(tmp_path / "again")
    assert before.keys() == after.keys()


def test_names_as_in_memory(home: Path, tmp_path: Path) -> None:
    """Some checkpoints have the names that transformers has in memory; those are kept, too."""
    folder = tmp_path / "whole"
    model = save_random(folder, "llava", tied=False)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    in_memory = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(in_memory, folder / "model.safetensors", metadata={"format": "pt"})
    write_whole(folder, merged_folder(str(folder)), tmp_path / "again")
    assert read_tensors(tmp_path / "again").keys() == in_memory.keys()
    assert "model.language_model.norm.weight" in in_memory


def test_many_files(home: Path, tmp_path: Path) -> None:
    """Read and written one by one, in whatever files the tensors of a model are."""
    whole = save_random(tmp_path / "whole", "llava", tied=False)
    tensors = read_tensors(tmp_path / "whole")
    for file in (tmp_path / "whole").glob("*.safetensors"):
        file.unlink()
    write_tensors(tmp_path / "whole", sorted(tensors.items()), most=1)
    assert len(list((tmp_path / "whole").glob("*.safetensors"))) == len(tensors)
    loaded, _ = load_model(merged_folder(str(tmp_path / "whole")), "cpu")
    ids = torch.arange(3, 9)[None]
    assert torch.equal(loaded(input_ids=ids).logits, whole(input_ids=ids).logits)
    kept = tensors_of(tmp_path / "whole", lambda n: None if is_text(n) else n)
    assert {name for name, _ in kept} == {n for n in tensors if not is_text(n)}


def test_a_decoder_of_another_kind(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "llava", text_config={"model_type": "gpt2", "n_layer": 2}, vision_config=_CLIP
    )
    with pytest.raises(SpecError, match=r"^models.vl: the text part of this llava model is gpt2;"):
        text_config(config, "models.vl")


def test_what_is_loaded(home: Path, tmp_path: Path) -> None:
    """A processor of a vision-language model, none of a text model."""
    vlm = save_tiny_llava(tmp_path / "vlm", 0)
    model, reader = load_checkpoint(vlm, "cpu")
    assert isinstance(model, transformers.LlavaForConditionalGeneration)
    assert reader.processor.tokenizer is reader.tokenizer
    before = reader_of(OpenedModel(str(vlm))).reader  # known without its weights
    assert before.processor is not None
    assert before.processor.tokenizer is before.tokenizer
    assert before.encode("word1") == reader.encode("word1")
    model, reader = load_checkpoint(merged_folder(str(vlm)), "cpu")
    assert isinstance(model, transformers.LlamaForCausalLM)
    assert reader.processor is None


def test_the_processor_counts_in_the_fingerprint(home: Path, tmp_path: Path) -> None:
    vlm = save_tiny_llava(tmp_path / "vlm", 0)
    before = fingerprint(vlm)
    for name in ("processor_config.json", "chat_template.jinja"):
        file = vlm / name
        old = file.read_text()
        file.write_text(old + " ")
        changed = fingerprint(vlm)
        assert changed.tokenizer != before.tokenizer
        assert (changed.config, changed.weights) == (before.config, before.weights)
        file.write_text(old)
    assert fingerprint(vlm).tokenizer == before.tokenizer
