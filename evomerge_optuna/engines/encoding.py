"""A text as the token ids that a model is given."""

from typing import Any

from evomerge_optuna.engines.end_of_text import without_end


def encode(tokenizer: Any, text: str) -> list[int]:
    """The text's token ids with what the tokenizer puts before it, once, and nothing behind it.

    A chat template may have written the first token, which most tokenizers would add again.
    """
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    ids: list[int] = without_end(tokenizer)(text, add_special_tokens=not begun)["input_ids"]
    return ids
