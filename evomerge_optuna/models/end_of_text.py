"""Prompts without an end of text, which some tokenizers put behind every text.

A model that reads an end of text answers at random, or not at all.
"""

import copy
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "a"
# What `without_end` gave; None: the tokenizer itself.
_known: "WeakKeyDictionary[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None]" = (
    WeakKeyDictionary()
)


def without_end(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """The tokenizer if it puts nothing behind a text; else a copy that puts nothing there.

    The copy puts before a text what the tokenizer puts there.
    """
    if tokenizer not in _known:
        before, behind = _around(tokenizer)
        # The tokenizer itself must not be a value here: it would keep its own key alive.
        _known[tokenizer] = _copy_with(tokenizer, before) if behind else None
    changed = _known[tokenizer]
    return tokenizer if changed is None else changed


def _around(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """The token ids that are put before and behind every text."""
    try:
        plain: list[int] = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    except Exception:  # a vocabulary of words, which has no token for all else
        plain = []
    whole: list[int] = tokenizer(_PROBE if plain else "")["input_ids"]
    if not plain:  # nothing tells where a text would stand; the end is what is called so
        ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {tokenizer.bos_token_id, None}
        count = sum(token not in ends for token in whole)
        return whole[:count], whole[count:]
    places = range(len(whole) - len(plain) + 1)
    start = next((p for p in places if whole[p : p + len(plain)] == plain), 0)
    return whole[:start], whole[start + len(plain) :]


def _copy_with(
    tokenizer: "PreTrainedTokenizerBase", before: list[int]
) -> "PreTrainedTokenizerBase":
    """A copy of the tokenizer that puts these ids before a text, and nothing behind it."""
    changed = copy.deepcopy(tokenizer)
    if hasattr(changed, "backend_tokenizer"):
        from tokenizers.processors import TemplateProcessing

        names = [tokenizer.convert_ids_to_tokens(token) for token in before]
        changed.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*names, "$A"], special_tokens=list({*zip(names, before, strict=True)})
        )
    else:
        changed.build_inputs_with_special_tokens = lambda ids, pair=None: [*before, *ids]
    return changed
