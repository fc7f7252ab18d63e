"""A merged model's texts end wherever the texts of one of its models end.

A fine-tune that was taught to end with a token of its own still writes it after a merge. A merged
model that has only the base model's ends writes on after it.
"""

import copy
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

GENERATION_CONFIG = "generation_config.json"
TOKEN_ID = re.compile(r"\w+_token_(id|index)")
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def end_ids(settings: Mapping[str, Any]) -> list[int]:
    """The ids that end a text, of a generation or model configuration."""
    ids = settings.get("eos_token_id")
    return [] if ids is None else list(ids) if isinstance(ids, list) else [int(ids)]


def ends_of_model(model: "PreTrainedModel") -> list[int]:
    """The ids with which `generate` ends a text of a loaded model."""
    return end_ids(model.generation_config.to_dict())


def ends_of(folder: Path) -> list[int]:
    """The ids with which `generate` ends a text of this checkpoint."""
    file = folder / GENERATION_CONFIG
    return end_ids(read_json(file if file.is_file() else folder / "config.json"))


def end_tokens(folder: Path, tokenizer: "PreTrainedTokenizerBase | None") -> list[str]:
    """The tokens with which `generate` ends a text of this checkpoint; none without a tokenizer."""
    ids = ends_of(folder)
    return [] if tokenizer is None else [str(t) for t in tokenizer.convert_ids_to_tokens(ids)]


def united_ends(
    models: "Iterable[tuple[Sequence[int], PreTrainedTokenizerBase]]",
    tokenizer: "PreTrainedTokenizerBase",
) -> list[int]:
    """The ends of all models as ids of a merged tokenizer; those that it has not are left out.

    Args:
        models: of each the ids of its ends, and its own tokenizer.
    """
    merged = tokenizer.get_vocab()
    found: dict[int, None] = {}
    for ids, own in models:
        for token in own.convert_ids_to_tokens(list(ids)):
            if token in merged:
                found[merged[token]] = None
    return list(found)


def write_generation_config(
    folder: Path,
    config: "PretrainedConfig",
    tokenizer: "PreTrainedTokenizerBase",
    first: Path,
    others: Iterable[Path],
) -> None:
    """Writes a merged model's generation settings, where config.json does not say them all.

    They are the first model's, with the ids of the merged tokenizer and the ends of all models.

    Args:
        config: the merged model's configuration, not yet written; gets the new ids, too.
        tokenizer: the merged model's.
        first: whose configuration the merged model has.
        others: the other models' folders.
    """
    own = _tokenizer(first, tokenizer)
    models = [(ends_of(first), own)]
    models += [(ends_of(model), _tokenizer(model, own)) for model in others]
    before, after = own.get_vocab(), tokenizer.get_vocab()
    if before != after:
        special = {name: getattr(config, name, None) for name in _SPECIAL}
        for name, value in with_new_ids(special, before, after).items():
            setattr(config, name, value)
    file = first / GENERATION_CONFIG
    settings = read_json(file) if file.is_file() else {}
    ends = united_ends(models, tokenizer)
    if before == after and set(ends) == set(ends_of(first)):
        if file.is_file():
            shutil.copy(file, folder)
        return
    if not settings:
        settings = {name: getattr(config, name, None) for name in _SPECIAL}
    elif before != after:
        settings = with_new_ids(settings, before, after)
    settings = {k: v for k, v in settings.items() if v is not None} | {"eos_token_id": ends}
    text = json.dumps(settings, indent=2) + "\n"
    (folder / GENERATION_CONFIG).write_text(text, encoding="utf-8")


def with_united_ends(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    others: "Iterable[tuple[PreTrainedModel, PreTrainedTokenizerBase]]",
) -> "GenerationConfig":
    """A model's generation config with the ends of other models, too.

    Args:
        others: models and their tokenizers.
    """
    united = copy.deepcopy(model.generation_config)
    pairs = ((ends_of_model(other), its) for other, its in others)
    own = ends_of_model(model)
    ends = united_ends([(own, tokenizer), *pairs], tokenizer)
    if set(ends) != set(own):
        united.eos_token_id = ends
    return united


def with_new_ids(
    content: Mapping[str, Any], before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, Any]:
    """The content with the ids of tokens as they are in another vocabulary, None where in none."""
    tokens = {number: token for token, number in before.items()}

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [new for old in value if (new := moved(old)) is not None]
        return after.get(tokens.get(value, ""))

    return {
        name: moved(value) if TOKEN_ID.fullmatch(name) and value is not None else value
        for name, value in content.items()
    }


def _tokenizer(folder: Path, otherwise: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """A model's tokenizer; a model without one has that of the first."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception:  # the many ways in which there is none; `preflight` refuses what matters
        return otherwise


def read_json(file: Path) -> dict[str, Any]:
    """A file of a checkpoint that holds one mapping, as config.json."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
