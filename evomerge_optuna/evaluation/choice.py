"""The likelihood of given continuations of prompts. Batched."""

from collections.abc import Sequence
from typing import Any

import torch

from evomerge_optuna.evaluation.generation import _pad_token
from evomerge_optuna.evaluation.prompts import encode


@torch.inference_mode()
def log_likelihoods(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], batch_size: int
) -> list[float]:
    """For each prompt and continuation the sum of log p(token | tokens before), in nats.

    Both are tokenised as one text, of which the prompt's own number of tokens is given, as in
    lm-evaluation-harness. White space at the prompt's end belongs to the continuation, since most
    vocabularies have it at the beginning of words. Where the tokens of the prompt grow into
    those of the continuation, the last token is predicted at least.
    """
    _pad_token(tokenizer)
    tokenizer.padding_side = "right"
    encoded = [_encode_pair(tokenizer, *pair) for pair in pairs]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][0]), reverse=True)
    found = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [encoded[i][0] for i in chosen]}, padding=True, return_tensors="pt"
        ).to(model.device)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        shortest = min(encoded[i][1] for i in chosen)  # no logits are needed before its end
        logits = model(
            input_ids=ids, attention_mask=mask, logits_to_keep=ids.shape[1] - shortest + 1
        ).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), ids[:, shortest:], reduction="none"
        )
        for row, i in enumerate(chosen):
            whole, given = encoded[i]
            counted = losses[row, given - shortest : len(whole) - shortest]
            found[i] = -float(counted.double().sum())
    return found


def _encode_pair(tokenizer: Any, prompt: str, continuation: str) -> tuple[list[int], int]:
    """The token ids of both as one text, and how many of them are given."""
    begun = prompt.rstrip()
    whole = encode(tokenizer, prompt + continuation)
    given = len(encode(tokenizer, begun)) if begun else 1
    return whole, max(1, min(given, len(whole) - 1))
