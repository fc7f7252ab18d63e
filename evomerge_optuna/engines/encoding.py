"""Texts as the token ids that a model is given, cut where they are too long for it."""

from collections.abc import Sequence

from evomerge_optuna.engines.lengths import fitted, room
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import Cut


def encode_texts(
    reader: Reader, texts: Sequence[str], added: int, too_long: Cut | None
) -> list[list[int]]:
    """The token ids of each text.

    Args:
        added: how many tokens the model may add.
        too_long: how a text is cut that the model has no positions for.

    Raises:
        SpecError: a text is too long, and nothing is to be cut.
    """
    left, bos = room(reader.positions, added), reader.tokenizer.bos_token_id
    return [fitted(reader.encode(text), left, too_long, bos) for text in texts]


def encode_pairs(
    reader: Reader, pairs: Sequence[tuple[str, str]], too_long: Cut | None
) -> list[tuple[list[int], int]]:
    """As `encode_pair` of each; a prompt is cut so that it leaves room for its continuation.

    Raises:
        SpecError: a pair is too long, and nothing is to be cut.
    """
    bos = reader.tokenizer.bos_token_id
    found = []
    for prompt, continuation in pairs:
        whole, given = encode_pair(reader, prompt, continuation)
        rest = whole[given:]
        before = fitted(whole[:given], room(reader.positions, len(rest)), too_long, bos)
        found.append((before + rest, len(before)))
    return found


def encode_pair(reader: Reader, prompt: str, continuation: str) -> tuple[list[int], int]:
    """The token ids of both as one text, and how many of them are the prompt's.

    As lm-evaluation-harness has it: the prompt has as many tokens as it has alone. White space at
    its end belongs to the continuation, since most vocabularies have it at the beginning of words.
    Where the tokens of the prompt grow into those of the continuation, at least the last token is
    the continuation's.
    """
    begun = prompt.rstrip()
    whole = reader.encode(prompt + continuation)
    given = len(reader.encode(begun)) if begun else 1
    return whole, max(1, min(given, len(whole) - 1))
