"""The text part of a vision-language model: a plain causal language model, which can be merged.

It is a checkpoint of the decoder's own architecture, so everything that merges, stacks or folds
text models works on it. The vision tower and the projector are never changed; `checkpoint` puts
both parts together again.
"""

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES, fingerprint
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.shards import read_tensors, write_tensors
from evomerge_optuna.models.transformers_internals import causal_language_models

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# In memory the decoder of each is `model.language_model`, and its head `lm_head`.
VISION_MODELS = ("gemma3", "llava", "llava_next", "mistral3", "qwen2_5_vl", "qwen2_vl", "vipllava")
DECODERS = ("gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")
# Decoders that compute what a plain one does, but for the positions of images.
_PLAIN = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2"}

# A decoder is model.language_model.* in memory, language_model.model.* in most released files, and
# model.* in those of Qwen2-VL and Qwen2.5-VL.
BODY = re.compile(
    r"(model\.language_model\.|language_model\.model\.|model\.)((embed_tokens|layers|norm)\..+)"
)
HEAD = re.compile(r"(language_model\.)?(lm_head\..+)")


def is_vision_language(config: "PretrainedConfig") -> bool:
    """Is it the configuration of a vision-language model whose text part can be taken out?"""
    return config.model_type in VISION_MODELS


def text_config(config: "PretrainedConfig", key: str) -> "PretrainedConfig":
    """The configuration of a model's text part; that of a text model as it is.

    Raises:
        SpecError: naming `key`, the model's place in the spec: the decoder is of another kind.
    """
    from transformers import CONFIG_MAPPING

    if not is_vision_language(config):
        return config
    content: dict[str, Any] = config.text_config.to_dict()
    kind = _PLAIN.get(content["model_type"], content["model_type"])
    if kind not in DECODERS:
        raise SpecError(
            f"{key}: the text part of this {config.model_type} model is {kind}; it can be merged "
            f"where it is one of {', '.join(DECODERS)}"
        )
    if kind != content["model_type"]:
        kept = ("rope_theta", "partial_rotary_factor")
        rope = {name: value for name, value in content["rope_parameters"].items() if name in kept}
        content["rope_parameters"] = rope | {"rope_type": "default"}
    content |= {
        "model_type": kind,
        "architectures": [causal_language_models()[kind]],
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": config.dtype or config.text_config.dtype,
    }
    return CONFIG_MAPPING[kind].from_dict(content)


def text_folder(folder: Path) -> Path:
    """The folder with the text part of a vision-language checkpoint, written once and kept.

    Raises:
        SpecError: see `text_config`.
    """
    found = fingerprint(folder)
    whole = f"{found.config}{found.weights}{found.tokenizer}"
    key = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return derived_folder("text", key, lambda place: _write_text_part(folder, place))


def is_text(name: str) -> bool:
    """Is a tensor of a vision-language checkpoint one of its text part?"""
    return _text_name(name) is not None


def _write_text_part(whole: Path, folder: Path) -> None:
    config = OpenedModel(str(whole)).config
    text_config(config, str(whole)).save_pretrained(folder)
    write_tensors(folder, read_tensors(whole, _text_name))
    for name in TOKENIZER_FILES:
        if (whole / name).is_file():
            shutil.copy(whole / name, folder)


def _text_name(name: str) -> str | None:
    """What the decoder's own architecture calls a tensor of its; None for any other."""
    if body := BODY.fullmatch(name):
        return f"model.{body[2]}"
    head = HEAD.fullmatch(name)
    return head[2] if head else None
