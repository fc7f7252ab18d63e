"""A checkpoint's JSON files as transformers 4 reads them, too, and what still has its form.

transformers 5 has names of its own for what its predecessor called otherwise, which reads past them
without a word and takes its defaults. So the older names stand beside the newer ones.
"""

import json
from collections.abc import Mapping
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

    Raises:
        OSError: a file cannot be read or written.
    """
    for name, older in (("config.json", older_config), ("tokenizer_config.json", older_tokenizer)):
        file = folder / name
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            if (changed := older(content)) != content:
                text = json.dumps(changed, indent=2, ensure_ascii=False) + "\n"
                file.write_text(text, encoding="utf-8")


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
    found: dict[str, Any] = {}
    if "full_attention" in rope:  # one for each kind of layer, as of Gemma 3
        if "rope_theta" in (local := rope.get("sliding_attention") or {}):
            found["rope_local_base_freq"] = local["rope_theta"]
        rope = rope["full_attention"] or {}
    found |= {key: rope[key] for key in _OWN_KEYS if key in rope}
    scaling = {key: value for key, value in rope.items() if key not in _OWN_KEYS}
    is_default = scaling.get("rope_type", "default") == "default"
    found["rope_scaling"] = None if is_default else scaling
    return found


def older_tokenizer(content: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer's configuration with a class and special tokens by their older names."""
    found = dict(content)
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra := found.get("extra_special_tokens"), list):
        del found["extra_special_tokens"]
        found["additional_special_tokens"] = extra
    return found
