"""How likely a model finds given texts."""

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
def negative_log_likelihoods(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    batch_size: int,
    too_long: Cut | None = None,
) -> list[tuple[float, int]]:
    """For each text the sum of -log p(token | tokens before), in nats, and the tokens counted.

    A text of one token, which has nothing before it, counts none. Texts are batched by length; see
    `within_memory` for what happens, and is raised, where a batch does not fit.

    Args:
        too_long: how texts are cut for which the model has no positions; refused unless given.

    Raises:
        SpecError: a text is too long.
    """
    left = room(positions(model.config), 0)
    encoded = [
        fitted(encode(tokenizer, text), left, too_long, tokenizer.bos_token_id) for text in texts
    ]
    results: list[tuple[float, int]] = [(0.0, 0)] * len(encoded)
    waiting = [place for place in longest_first(encoded) if len(encoded[place]) > 1]

    def measure(size: int) -> None:
        while waiting:
            chosen = waiting[:size]
            found = _measure(model, [encoded[place] for place in chosen])
            for place, result in zip(chosen, found, strict=True):
                results[place] = result
            del waiting[:size]

    within_memory(batch_size, measure)
    return results


def _measure(model: Any, rows: list[list[int]]) -> list[tuple[float, int]]:
    # Padded on the right, where no token of the text looks.
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(model.device)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1].float()
    losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    sums = (losses * mask[:, 1:]).sum(dim=1)
    return [(total, len(row) - 1) for total, row in zip(sums.tolist(), rows, strict=True)]
