"""How likely a model of transformers finds given token ids."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from evomerge_optuna.engines.base import Likelihood
from evomerge_optuna.engines.batching import longest_first, within_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Row = TypeVar("Row")
Found = TypeVar("Found")


@torch.inference_mode()
def likelihoods(
    model: "PreTrainedModel", pairs: Sequence[tuple[list[int], int]], batch_size: int
) -> list[Likelihood]:
    """How likely each text is behind its first tokens.

    Args:
        pairs: each the token ids of a text, and how many of them are given.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: one text alone does not fit in memory.
    """
    order = longest_first([whole for whole, _ in pairs])
    found = _batched(lambda rows: _of_continuations(model, rows), pairs, order, batch_size)
    return [found[place] for place in range(len(pairs))]


@torch.inference_mode()
def negative_log_likelihoods(
    model: "PreTrainedModel", texts: Sequence[list[int]], batch_size: int
) -> list[tuple[float, int]]:
    """See `TextEngine.negative_log_likelihoods`; raises as `likelihoods`."""
    order = [place for place in longest_first(texts) if len(texts[place]) > 1]
    found = _batched(lambda rows: _of_texts(model, rows), texts, order, batch_size)
    return [found.get(place, (0.0, 0)) for place in range(len(texts))]


def _batched(
    measure: Callable[[list[Row]], list[Found]],
    rows: Sequence[Row],
    waiting: list[int],
    batch_size: int,
) -> dict[int, Found]:
    """What is measured of the rows in these places, in batches of neighbours, by place."""
    found: dict[int, Found] = {}

    def run(size: int) -> None:
        while waiting:
            chosen = waiting[:size]
            results = measure([rows[place] for place in chosen])
            found.update(zip(chosen, results, strict=True))
            del waiting[:size]

    within_memory(batch_size, run)
    return found


def _of_continuations(
    model: "PreTrainedModel", rows: list[tuple[list[int], int]]
) -> list[Likelihood]:
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
    hits = logits.argmax(dim=-1) == ids[:, shortest:]
    own = [slice(given - shortest, len(whole) - shortest) for whole, given in rows]
    return [
        Likelihood(-float(losses[row, part].double().sum()), bool(hits[row, part].all()))
        for row, part in enumerate(own)
    ]


def _of_texts(model: "PreTrainedModel", rows: list[list[int]]) -> list[tuple[float, int]]:
    # Padded on the right, where no token of the text looks.
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(model.device)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1].float()
    losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    sums = (losses * mask[:, 1:]).sum(dim=1)
    return [(total, len(row) - 1) for total, row in zip(sums.tolist(), rows, strict=True)]
