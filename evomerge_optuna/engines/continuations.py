"""The likelihood of given continuations of prompts. Batched."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from evomerge_optuna.engines.batching import longest_first, within_memory
from evomerge_optuna.engines.encoding import encode
from evomerge_optuna.engines.lengths import fitted, room
from evomerge_optuna.models.positions import positions
from evomerge_optuna.spec import Cut


@torch.inference_mode()
def log_likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    too_long: Cut | None = None,
) -> list[float]:
    """For each prompt and continuation the sum of log p(token | tokens before), in nats.

    Both are tokenised as one text, of which the prompt's own number of tokens is given, as in
    lm-evaluation-harness. White space at the prompt's end belongs to the continuation, since most
    vocabularies have it at the beginning of words. Where the tokens of the prompt grow into
    those of the continuation, the last token is predicted at least.

    Args:
        too_long: how prompts are cut for which the model has no positions; refused unless given.

    Raises:
        SpecError: a pair is too long.
    """
    longest, bos = positions(model.config), tokenizer.bos_token_id
    encoded = [_fitted(*encode_pair(tokenizer, *pair), longest, too_long, bos) for pair in pairs]
    found = [0.0] * len(encoded)
    waiting = longest_first([whole for whole, _ in encoded])

    def measure(size: int) -> None:
        while waiting:
            chosen = waiting[:size]
            results = _measure(model, [encoded[place] for place in chosen])
            for place, result in zip(chosen, results, strict=True):
                found[place] = result
            del waiting[:size]

    within_memory(batch_size, measure)
    return found


def _measure(model: Any, rows: list[tuple[list[int], int]]) -> list[float]:
    # Padded on the right, where no token of the text looks.
    padded = pad_sequence([torch.tensor(whole) for whole, _ in rows], batch_first=True)
    ids = padded.to(model.device)
    lengths = torch.tensor([len(whole) for whole, _ in rows], device=model.device)
    mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    shortest = min(given for _, given in rows)  # no logits are needed before its end
    logits = model(
        input_ids=ids, attention_mask=mask.long(), logits_to_keep=ids.shape[1] - shortest + 1
    ).logits[:, :-1]
    losses = cross_entropy(logits.float().transpose(1, 2), ids[:, shortest:], reduction="none")
    return [
        -float(losses[row, given - shortest : len(whole) - shortest].double().sum())
        for row, (whole, given) in enumerate(rows)
    ]


def _fitted(
    whole: list[int], given: int, positions: int | None, too_long: Cut | None, bos: int | None
) -> tuple[list[int], int]:
    """The same with a prompt that leaves room for the continuation."""
    rest = whole[given:]
    prompt = fitted(whole[:given], room(positions, len(rest)), too_long, bos)
    return prompt + rest, len(prompt)


def encode_pair(tokenizer: Any, prompt: str, continuation: str) -> tuple[list[int], int]:
    """The token ids of both as one text, and how many of them are given."""
    begun = prompt.rstrip()
    whole = encode(tokenizer, prompt + continuation)
    given = len(encode(tokenizer, begun)) if begun else 1
    return whole, max(1, min(given, len(whole) - 1))
