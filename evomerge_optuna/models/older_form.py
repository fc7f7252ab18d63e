"""A checkpoint's JSON files as transformers 4 reads them, too, and what still has its form.

transformers 5 has names of its own for what its predecessor called otherwise, which reads past them
without a word and takes its defaults. So the older names stand beside the newer ones.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_OWN_KEYS = ("rope_theta", "partial_rotary_factor")  # of rope_parameters, beside `rope_scaling`
_NEOX = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
_ALSO = {
    "gpt_neox": _NEOX,
    "gpt_neox_japanese": _NEOX,
    "modernbert-decoder": {
        "rope_theta": "global_rope_theta",
        "rope_local_base_freq": "local_rope_theta",
    },
    "qwen3_moe": {"num_local_experts": "num_experts"},
}  # by model_type: names of single architectures


def write_older_form(folder: Path) -> None:
    """Adds the older names to config.json and tokenizer_config.json.

    Not to a configuration that transformers 5 would then read otherwise: there are architectures
    that only it knows.

    Raises:
        OSError: a file cannot be read or written.
    """
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    before, text = _as_read(folder), config.read_text(encoding="utf-8")
    _rewrite(config, older_config)
    if _as_read(folder, before) != before:
        config.write_text(text, encoding="utf-8")
    if tokenizer.is_file():
        _rewrite(tokenizer, older_tokenizer)


def _rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    changed = change(json.loads(file.read_text(encoding="utf-8")))
    text = json.dumps(changed, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")


def _as_read(folder: Path, names: Iterable[str] | None = None) -> dict[str, Any] | None:
    """The configuration as transformers reads it, of it these keys; None where it cannot."""
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except Exception:  # each architecture has its own demands
        return None
    return found if names is None else {name: found.get(name) for name in names}


def older_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration with the older names, those of its text part, too."""
    found = dict(content)
    if "dtype" in found:
        found["torch_dtype"] = found["dtype"]
    if isinstance(found.get("text_config"), dict):
        found["text_config"] = older_config(found["text_config"])
    if isinstance(rope := found.get("rope_parameters"), dict):
        found |= _older_rope(rope)
    others = _ALSO.get(found.get("model_type", ""), {})
    return found | {old: found[new] for new, old in others.items() if new in found}


def _older_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    if any(isinstance(value, dict) for value in rope.values()):  # one for each kind of layer
        return _older_rope_by_layer(rope)
    found = {key: rope[key] for key in _OWN_KEYS if key in rope}
    return found | {"rope_scaling": _scaling(rope)}


def _older_rope_by_layer(rope: Mapping[str, Any]) -> dict[str, Any]:
    """As of Gemma 3: the rest of it is for the layers with full attention."""
    full, local = (rope.get(f"{kind}_attention") or {} for kind in ("full", "sliding"))
    found = {"rope_theta": full.get("rope_theta"), "rope_local_base_freq": local.get("rope_theta")}
    return {key: value for key, value in found.items() if value is not None} | (
        {"rope_scaling": scaling} if (scaling := _scaling(full)) else {}
    )


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    if rope.get("rope_type", "default") == "default":
        return None
    return {key: value for key, value in rope.items() if key not in _OWN_KEYS}


def older_tokenizer(content: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer's configuration with a class and special tokens by their older names."""
    found = dict(content)
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra := found.get("extra_special_tokens"), list):
        del found["extra_special_tokens"]
        found["additional_special_tokens"] = extra
    return found
