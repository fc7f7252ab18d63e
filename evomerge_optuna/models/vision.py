"""Vision-language models in two parts: a plain causal language model, and all that is not text.

The text part of such a model is a checkpoint of its decoder's own architecture, so that whatever
merges, stacks and folds text models does so with it. The rest, vision tower and projector, is never
touched; `write_model` puts the two together again.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.catalog import load_config, local_folder
from evomerge_optuna.models.ends import (
    GENERATION_CONFIG,
    TOKEN_ID,
    end_ids,
    ends_of,
    read_json,
    with_new_ids,
)
from evomerge_optuna.models.fingerprint import PROCESSOR_FILES, TOKENIZER_FILES, fingerprint
from evomerge_optuna.models.shards import read_tensors, tensor_names, write_tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# In memory the decoder of each is `model.language_model`, and its head `lm_head`.
VISION_MODELS = ("gemma3", "llava", "llava_next", "mistral3", "qwen2_5_vl", "qwen2_vl", "vipllava")
DECODERS = ("gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")
# Decoders that compute what a plain one does, but for the positions of images.
_PLAIN = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2"}

# A decoder is model.language_model.* in memory, language_model.model.* in most released files, and
# model.* in those of Qwen2-VL and Qwen2.5-VL.
_BODY = re.compile(
    r"(model\.language_model\.|language_model\.model\.|model\.)((embed_tokens|layers|norm)\..+)"
)
_HEAD = re.compile(r"(language_model\.)?(lm_head\..+)")
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def sees(config: "PretrainedConfig") -> bool:
    """Is it the configuration of a vision-language model whose text part can be told apart?"""
    return config.model_type in VISION_MODELS


def text_config(config: "PretrainedConfig", key: str) -> "PretrainedConfig":
    """The configuration of a model's text part; that of a text model as it is.

    Raises:
        SpecError: naming `key`, the model's place in the spec: the decoder is of another kind.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if not sees(config):
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
        "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]],
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": config.dtype or config.text_config.dtype,
    }
    return CONFIG_MAPPING[kind].from_dict(content)


def text_folder(model: str) -> Path:
    """A folder with a model's text part; a text model's own. Written once and kept.

    Raises:
        SpecError: see `text_config`, or the model cannot be had.
    """
    folder = local_folder(model)
    if not _sees(folder):
        return folder
    found = fingerprint(folder)
    whole = f"{found.config}{found.weights}{found.tokenizer}"
    key = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return derived_folder("text", key, lambda place: _write_text_part(folder, place))


def is_text(name: str) -> bool:
    """Is a tensor of a vision-language checkpoint one of its text part?"""
    return _text_name(name) is not None


def write_model(vision: Path, text: Path, out: Path) -> None:
    """Writes a vision-language checkpoint: all of `vision`, but with the text part `text`.

    Tensors have the names that `vision` has for them, so that what loads it loads the result.

    Raises:
        SpecError: see `write_files`.
        OSError: a file cannot be read or written.
    """
    from transformers import AutoConfig, AutoTokenizer

    names = tensor_names(vision)
    body = next(found[1] for name in names if (found := _BODY.fullmatch(name)))
    head = "language_model." if body == "language_model.model." else ""

    def in_place(name: str) -> str:
        return head + name if _HEAD.fullmatch(name) else body + name.removeprefix("model.")

    def outside(name: str) -> str | None:
        return None if is_text(name) else name

    write_tensors(out, chain(read_tensors(text, in_place), read_tensors(vision, outside)))
    config = AutoConfig.from_pretrained(text, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    write_files(vision, config, tokenizer, ends_of(text), out)


def write_files(
    vision: Path, text: "PretrainedConfig", tokenizer: Any, ends: Sequence[int], out: Path
) -> None:
    """Writes what a vision-language checkpoint has beside its weights.

    Args:
        vision: the checkpoint whose processor, chat template and configuration it has.
        text: the text part's configuration, whose depth, vocabulary and dtype it has.
        tokenizer: the text part's; where it has the same tokens, that of `vision` stays as it is.
        ends: ids of the tokens that end a text of the text part.

    Raises:
        SpecError: see `merged_config`.
        OSError: a file cannot be read or written.
    """
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(vision, trust_remote_code=False)
    config = merged_config(vision, text, own, tokenizer)
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    same = own.get_vocab() == tokenizer.get_vocab()
    if not same:
        _with_names_of(own, tokenizer).save_pretrained(out)
    for name in (*PROCESSOR_FILES, *(TOKENIZER_FILES if same else ())):
        if (vision / name).is_file():
            shutil.copy(vision / name, out)
    file, settings = vision / GENERATION_CONFIG, {}
    if file.is_file():
        settings = with_new_ids(read_json(file), own.get_vocab(), tokenizer.get_vocab())
    known = end_ids(settings or config) or end_ids(config.get("text_config", {}))
    if (not same and settings) or set(ends) - set(known):
        if ends:
            settings["eos_token_id"] = list(dict.fromkeys([*known, *ends]))
        written = json.dumps(settings, indent=2)
        (out / GENERATION_CONFIG).write_text(written, encoding="utf-8")


def merged_config(
    vision: Path, text: "PretrainedConfig", own: Any, tokenizer: Any
) -> dict[str, Any]:
    """The config.json of a vision-language model with another text part.

    Args:
        vision: the checkpoint whose configuration it is but for what follows.
        text: has the depth, the size of the vocabulary and the dtype.
        own: the tokenizer of `vision`.
        tokenizer: of the text part, in which tokens may have other ids.

    Raises:
        SpecError: it has no token for images.
    """
    from transformers import AutoConfig

    content = read_json(vision / "config.json")
    before, after = own.get_vocab(), tokenizer.get_vocab()
    if before != after:
        named = AutoConfig.from_pretrained(vision, trust_remote_code=False).to_dict()
        content = {k: v for k, v in named.items() if TOKEN_ID.fullmatch(k)} | content
        if missing := missing_tokens(content, own, tokenizer):
            raise SpecError(f"the merged tokenizer has no {missing[0]}, which stands for images")
        content = with_new_ids(content, before, after)
        if "text_config" in content:
            content["text_config"] = with_new_ids(content["text_config"], before, after)
    decoder = content.get("text_config", content)
    described = text.to_dict()
    per_layer = [
        name
        for name, value in described.items()
        if isinstance(value, list) and len(value) == text.num_hidden_layers and name in decoder
    ]
    for name in ("num_hidden_layers", "vocab_size", *per_layer):
        decoder[name] = described[name]
    dtype = str(text.dtype).removeprefix("torch.")
    for part in (content, decoder):
        if "vocab_size" in part:
            part["vocab_size"] = text.vocab_size
        part.pop("torch_dtype", None)  # as earlier versions call it
        part["dtype"] = dtype
        part["tie_word_embeddings"] = text.tie_word_embeddings
    return content


def missing_tokens(content: Mapping[str, Any], own: Any, tokenizer: Any) -> list[str]:
    """Tokens that a vision-language model's config.json names and another tokenizer lacks.

    Those that begin, end and fill up texts do not count.

    Args:
        own: the model's tokenizer.
    """
    after = tokenizer.get_vocab()
    found = [
        own.convert_ids_to_tokens(value)
        for name, value in content.items()
        if TOKEN_ID.fullmatch(name) and name not in _ENDS and isinstance(value, int)
    ]
    return [token for token in found if token is None or token not in after]


def _with_names_of(own: Any, tokenizer: Any) -> Any:
    """The tokenizer with the other's chat template and its names for tokens, as `image_token`."""
    names = [
        n for n in own.SPECIAL_TOKENS_ATTRIBUTES if n not in tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    ]
    tokenizer._set_model_specific_special_tokens({name: getattr(own, name) for name in names})
    tokenizer.chat_template = own.chat_template
    return tokenizer


def _write_text_part(vision: Path, folder: Path) -> None:
    config = load_config(str(vision), str(vision))
    text_config(config, str(vision)).save_pretrained(folder)
    write_tensors(folder, read_tensors(vision, _text_name))
    for name in TOKENIZER_FILES:
        if (vision / name).is_file():
            shutil.copy(vision / name, folder)


def _text_name(name: str) -> str | None:
    """What the decoder's own architecture calls a tensor of its; None for any other."""
    if body := _BODY.fullmatch(name):
        return f"model.{body[2]}"
    head = _HEAD.fullmatch(name)
    return head[2] if head else None


def _sees(folder: Path) -> bool:
    return read_json(folder / "config.json").get("model_type") in VISION_MODELS
