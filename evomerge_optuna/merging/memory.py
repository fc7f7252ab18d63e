"""A memory budget: what is kept between trials must fit, what does not is computed again."""

from dataclasses import dataclass

import torch

from evomerge_optuna.devices import torch_device
from evomerge_optuna.machine import share_of, this_machine

# Of what is free at the start; the rest is for running the model.
_SHARE = 0.7


@dataclass
class Budget:
    """Bytes that may be kept, and how many are."""

    limit: int
    used: int = 0
    refused: int = 0

    @classmethod
    def of(cls, device: str, limit: int | None) -> "Budget":
        """This process's share of the limit in bytes, or of 70% of what the device has free now.

        Args:
            device: as in a spec.
        """
        if limit is None:
            limit = int(_SHARE * this_machine(torch_device(device)).free)
        return cls(share_of(limit, device))

    def spend(self, size: int) -> None:
        """Counts bytes that are needed whether they fit or not."""
        self.used += size

    def fits(self, size: int) -> bool:
        """Counts bytes that are to be kept; False, and not counted, where they do not fit."""
        if self.used + size > self.limit:
            self.refused += size
            return False
        self.used += size
        return True


class Scratch:
    """Buffers that one tensor's merge leaves to the next."""

    def __init__(self, budget: Budget, device: str) -> None:
        self._budget = budget
        self._device = device
        self._buffers: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def take(self, index: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """`count` elements of buffer `index`, with whatever is in them."""
        buffer = self._buffers.get((index, dtype))
        if buffer is None or len(buffer) < count:
            held = 0 if buffer is None else size_of(buffer)
            buffer = torch.empty(count, dtype=dtype, device=self._device)
            self._budget.spend(size_of(buffer) - held)
            self._buffers[index, dtype] = buffer
        return buffer[:count]


def size_of(*tensors: torch.Tensor) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
