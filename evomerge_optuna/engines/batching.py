"""Batches as large as memory allows: a batch that does not fit is run again at half its size."""

import sys
from collections.abc import Callable, Sequence, Sized

import torch

from evomerge_optuna.devices import give_back_unused

# The largest batch that may be tried in this process: memory that ran out once will again.
_limit = sys.maxsize


def longest_first(rows: Sequence[Sized]) -> list[int]:
    """The rows' places by length: neighbours need little padding, and the costliest come first."""
    return sorted(range(len(rows)), key=lambda place: len(rows[place]), reverse=True)


def within_memory(batch_size: int, work: Callable[[int], None]) -> None:
    """Calls `work` with a batch size, and again with half of it each time memory runs out.

    The smaller size is kept for the rest of the process. `work` must go on where it left off: what
    it has finished is not asked for again.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: one row alone does not fit.
    """
    global _limit
    while True:
        size = min(batch_size, _limit)
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not _is_out_of_memory(error):
                raise
        # Out here the error is gone, and with it the frames that held the batch's tensors.
        _limit = size // 2
        give_back_unused()


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    # torch raises a plain RuntimeError on the CPU: "not enough memory" on Windows, "can't allocate
    # memory" elsewhere, both from its DefaultCPUAllocator.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )
