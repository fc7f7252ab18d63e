"""Greedy decoding of many prompts: no token is computed twice, and none for a text that has ended.

A batch is a table with a row for each sequence and a column for each token, padded on the left.
Tokens that all prompts begin with are run once, and their keys and values copied into the rows. A
sequence that has ended leaves the table, and the next prompts take the places that are free.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from evomerge_optuna.engines.batching import longest_first, within_memory
from evomerge_optuna.models.transformers_internals import (
    cache_states,
    change_cache,
    has_movable_states,
    join_caches,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Of the places. To fill them costs a forward pass of its own, so some are left free for a while.
_WORTH_FILLING = 0.5


@torch.inference_mode()
def greedy(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    batch_size: int,
    has_ended: Callable[[list[int]], bool],
) -> list[list[int]]:
    """The prompts' continuations, token ids both: always the most likely next token.

    In float32 they are what `model.generate` gives each prompt alone, unless two tokens are equally
    likely to the last digits. In bfloat16 and float16 such ties are common, and which one wins
    depends on the shape of the batch, as it does in `model.generate`.

    Args:
        model: one that `is_decodable`.
        prompts: of one token or more each.
        has_ended: is this continuation complete? Asked after each of its tokens.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: one prompt alone does not fit in memory.
    """
    decoding = _Decoding(model, prompts, max_new_tokens, has_ended)
    within_memory(min(batch_size, len(prompts)), decoding.run)
    return [decoding.finished[place] for place in range(len(prompts))]


def is_decodable(model: "PreTrainedModel", length: int) -> bool:
    """Is a row's next token a matter of that row, its positions and movable keys and values alone?

    It is not where layers have another state than keys and values of all tokens (Mamba, hybrids),
    share them (Gemma 3n) or attend in chunks, where a model takes no positions (BLOOM), and where
    rotary frequencies change for the whole batch once one sequence passes a length (LongRoPE).

    Args:
        length: of the longest sequence when it is complete, in tokens.
    """
    config = model.config.get_text_config()
    cache = DynamicCache(config=config)
    return (
        {"position_ids", "past_key_values", "logits_to_keep"}
        <= inspect.signature(model.forward).parameters.keys()
        and len(cache) == config.num_hidden_layers
        and has_movable_states(cache)
        and "chunked_attention" not in (getattr(config, "layer_types", None) or ())
        and length <= _fixed_rope_length(config)
    )


def _fixed_rope_length(config: "PretrainedConfig") -> float:
    """Up to how many tokens rotary frequencies are the same."""
    rope = getattr(config, "rope_parameters", None) or {}
    lengths = [
        kind.get("original_max_position_embeddings", config.max_position_embeddings)
        for kind in (rope, *rope.values())  # for all layers, or by layer type
        if isinstance(kind, dict) and kind.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(lengths, default=float("inf"))


@dataclass
class _Table:
    """Sequences under way. The cache has keys and values of all their tokens but the newest."""

    places: list[int]  # of the rows' prompts
    newest: torch.Tensor  # (rows,) token ids
    padding: torch.Tensor  # (rows,) empty columns at the left
    cache: DynamicCache

    @property
    def columns(self) -> int:
        return int(self.cache.get_seq_length())

    def keep(self, rows: list[int]) -> None:
        """Drops all other rows, and the columns that are empty then."""
        chosen = torch.tensor(rows, device=self.newest.device)
        self.places = [self.places[row] for row in rows]
        self.newest, self.padding = self.newest[chosen], self.padding[chosen]
        empty = int(self.padding.min())
        self.padding = self.padding - empty
        change_cache(self.cache, lambda states: states[chosen, :, empty:])

    def add(self, other: "_Table") -> None:
        """Adds the rows of a table that has no more columns."""
        missing = self.columns - other.columns
        self.places += other.places
        self.newest = torch.cat([self.newest, other.newest])
        self.padding = torch.cat([self.padding, other.padding + missing])
        join_caches(
            self.cache,
            other.cache,
            lambda states, added: torch.cat([states, pad(added, (0, 0, missing, 0))]),
        )


class _Decoding:
    def __init__(
        self,
        model: "PreTrainedModel",
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        has_ended: Callable[[list[int]], bool],
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._max_new_tokens = max_new_tokens
        self._has_ended = has_ended
        self._texts: dict[int, list[int]] = {}
        self.finished: dict[int, list[int]] = {}

    def run(self, size: int) -> None:
        """Continues the prompts that are not finished, in a table of `size` rows."""
        prefix = self._prefix()
        waiting = [place for place in longest_first(self._prompts) if place not in self.finished]
        table: _Table | None = None
        while waiting or table:
            free = size - (len(table.places) if table else 0)
            if waiting and free >= _WORTH_FILLING * size:
                # No longer than the prompts before them, so the table has the columns for them.
                begun = self._unfinished(self._begin(waiting[:free], prefix))
                del waiting[:free]
                if table and begun:
                    table.add(begun)
                table = table or begun
            elif table:
                self._step(table)
                table = self._unfinished(table)

    def _prefix(self) -> DynamicCache:
        """Keys and values of what all prompts begin with; empty where that is nothing."""
        # Without a config all layers keep all tokens, and windows are a matter of the mask alone.
        cache = DynamicCache()
        shared = _shared(self._prompts)
        if shared:
            ids = torch.tensor([shared], device=self._model.device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _begin(self, places: list[int], prefix: DynamicCache) -> _Table:
        """A table of prompts with the first token of each answer."""
        self._texts |= {place: [] for place in places}
        rows = [torch.tensor(self._prompts[place]) for place in places]
        ids = pad_sequence(rows, batch_first=True, padding_side="left").to(self._model.device)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        table = _Table(places, ids[:, -1], ids.shape[1] - lengths, DynamicCache())
        known = int(prefix.get_seq_length())
        if known:
            _fill(table.cache, prefix, table.padding)
        table.newest = self._next(table, ids[:, known:])
        return table

    def _step(self, table: _Table) -> None:
        table.newest = self._next(table, table.newest[:, None])

    def _next(self, table: _Table, ids: torch.Tensor) -> torch.Tensor:
        """Runs the next columns of a table; the token that follows in each row, shaped (rows,)."""
        columns = torch.arange(table.columns + ids.shape[1], device=ids.device)
        positions = columns - table.padding[:, None]
        output = self._model(
            input_ids=ids,
            attention_mask=(positions >= 0).long(),
            position_ids=positions[:, table.columns :].clamp(min=0),
            past_key_values=table.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return torch.as_tensor(output.logits[:, -1].argmax(dim=-1))

    def _unfinished(self, table: _Table) -> _Table | None:
        """The table without the rows whose newest token is the last; None where none is left."""
        left = []
        for row, (place, token) in enumerate(zip(table.places, table.newest.tolist(), strict=True)):
            text = self._texts[place]
            text.append(token)
            if len(text) == self._max_new_tokens or self._has_ended(text):
                self.finished[place] = text
            else:
                left.append(row)
        if 0 < len(left) < len(table.places):
            table.keep(left)
        return table if left else None


def _shared(prompts: Sequence[list[int]]) -> list[int]:
    """What several prompts begin with, but for the last token of the shortest."""
    if len(prompts) < 2:
        return []
    # Where the first and the last in order agree, all do.
    pairs = zip(min(prompts)[:-1], max(prompts)[:-1], strict=False)
    return [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _fill(cache: DynamicCache, prefix: DynamicCache, padding: torch.Tensor) -> None:
    """Makes the prefix's keys and values the first columns of a table that is padded so.

    A row with padding has room for less of the prefix; the rest of it is run with the row.
    """
    columns = torch.arange(prefix.get_seq_length(), device=padding.device)
    tokens = (columns - padding[:, None]).clamp(min=0)  # (rows, columns)
    for index, states in enumerate(cache_states(prefix)):
        # (1, heads, tokens, width) to (rows, heads, columns, width)
        keys, values = (state[0][:, tokens].transpose(0, 1) for state in states)
        cache.update(keys, values, index)
