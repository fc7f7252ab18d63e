"""Memory budgets: what merges share is kept where it fits, else read or computed again."""

from dataclasses import dataclass

import torch

from evomerge_optuna.devices import torch_device
from evomerge_optuna.machine import share_of, this_machine

# Of what is free at the start; the rest is for running the model.
SHARE = 0.7


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
            limit = int(SHARE * this_machine(torch_device(device)).free)
        return cls(share_of(limit, device))

    @property
    def left(self) -> int:
        """Bytes that may still be kept."""
        return max(0, self.limit - self.used)

    def spend(self, size: int) -> None:
        """Counts bytes that are needed whether they fit or not."""
        self.used += size

    def fits(self, size: int) -> bool:
        """Counts bytes that are to be kept; False, and not counted, where they do not fit."""
        if size > self.left:
            self.refused += size
            return False
        self.used += size
        return True


@dataclass(frozen=True)
class Room:
    """Where the inputs of merges may be kept, the fastest place first; what fits nowhere is read.

    Args:
        device: where merges are made, and what is computed of the inputs is kept, too.
        host: pinned memory of the machine, where the device has memory of its own; else nothing.
    """

    device: Budget
    host: Budget

    @classmethod
    def of(cls, device: str, limit: int | None, taken: int = 0) -> "Room":
        """This process's share of what there is.

        Args:
            device: as in a spec.
            limit: bytes of the device; None: 70% of what is free, as of the machine.
            taken: bytes of the device that are for something else.
        """
        host = int(SHARE * this_machine(torch_device(device)).host)
        on_device = Budget.of(device, limit)
        on_device.spend(taken)
        return cls(on_device, Budget(share_of(host, "cpu")))


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
