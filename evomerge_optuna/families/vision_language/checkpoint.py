"""What a checkpoint of a vision-language model with another text part has beside its weights.

The host is the vision-language model that keeps everything but its text part.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.vision_language.text_part import is_text
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.ends import (
    GENERATION_CONFIG,
    TOKEN_ID,
    end_ids,
    read_json,
    with_new_ids,
)
from evomerge_optuna.models.fingerprint import PROCESSOR_FILES, TOKENIZER_FILES
from evomerge_optuna.models.opened import OpenedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def digest_beside_text(folder: Path) -> str:
    """SHA-256 of a vision-language checkpoint's tensors outside of its text part."""
    return digest_files(folder, lambda name: not is_text(name))


def digest_of_whole(text: str, beside_text: str) -> str:
    """SHA-256 over the digests of both parts."""
    return hashlib.sha256(f"{text}{beside_text}".encode()).hexdigest()


def write_files_beside_weights(
    host: Path,
    text: "PretrainedConfig",
    tokenizer: "PreTrainedTokenizerBase",
    ends: Sequence[int],
    out: Path,
) -> None:
    """Writes what a vision-language checkpoint has beside its weights.

    Args:
        host: the checkpoint whose processor, chat template and configuration it has.
        text: the text part's configuration, whose depth, vocabulary and dtype it has.
        tokenizer: the text part's; where it has the same tokens, that of `host` stays as it is.
        ends: ids of the tokens that end a text of the text part.

    Raises:
        SpecError: see `config_of_whole`.
        OSError: a file cannot be read or written.
    """
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(host, trust_remote_code=False)
    config = config_of_whole(host, text, own, tokenizer)
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    same = own.get_vocab() == tokenizer.get_vocab()
    if not same:
        _with_names_of(own, tokenizer).save_pretrained(out)
    for name in (*PROCESSOR_FILES, *(TOKENIZER_FILES if same else ())):
        if (host / name).is_file():
            shutil.copy(host / name, out)
    file, settings = host / GENERATION_CONFIG, {}
    if file.is_file():
        settings = with_new_ids(read_json(file), own.get_vocab(), tokenizer.get_vocab())
    known = end_ids(settings or config) or end_ids(config.get("text_config", {}))
    if (not same and settings) or set(ends) - set(known):
        if ends:
            settings["eos_token_id"] = list(dict.fromkeys([*known, *ends]))
        written = json.dumps(settings, indent=2)
        (out / GENERATION_CONFIG).write_text(written, encoding="utf-8")


def processor_of_whole(
    host: OpenedModel, text: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase"
) -> "ProcessorMixin":
    """The processor that `write_files_beside_weights` would write."""
    with TemporaryDirectory() as folder:
        write_files_beside_weights(host.folder, text, tokenizer, [], Path(folder))
        return OpenedModel(folder, host.name).processor


def config_of_whole(
    host: Path,
    text: "PretrainedConfig",
    own: "PreTrainedTokenizerBase",
    tokenizer: "PreTrainedTokenizerBase",
) -> dict[str, Any]:
    """The config.json of a vision-language model with another text part.

    Args:
        host: the checkpoint whose configuration it is but for what follows.
        text: has the depth, the size of the vocabulary and the dtype.
        own: the tokenizer of `host`.
        tokenizer: of the text part, in which tokens may have other ids.

    Raises:
        SpecError: it has no token for images.
    """
    from transformers import AutoConfig

    content = read_json(host / "config.json")
    before, after = own.get_vocab(), tokenizer.get_vocab()
    if before != after:
        named = AutoConfig.from_pretrained(host, trust_remote_code=False).to_dict()
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


def missing_tokens(
    content: Mapping[str, object],
    own: "PreTrainedTokenizerBase",
    tokenizer: "PreTrainedTokenizerBase",
) -> list[str]:
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


def _with_names_of(
    own: "PreTrainedTokenizerBase", tokenizer: "PreTrainedTokenizerBase"
) -> "PreTrainedTokenizerBase":
    """A copy of the tokenizer with the names that `own` has for tokens, and its chat template.

    Such a name is `image_token`.
    """
    names = [
        n for n in own.SPECIAL_TOKENS_ATTRIBUTES if n not in tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    ]
    changed = copy.deepcopy(tokenizer)  # others read with it, too
    changed._set_model_specific_special_tokens({name: getattr(own, name) for name in names})
    changed.chat_template = own.chat_template
    return changed
