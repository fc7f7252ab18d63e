"""The stream of a merge, whichever way its tensors are made."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from evomerge_optuna.devices import (
    Lane,
    has_memory_of_its_own,
    random_states,
    set_random_states,
)
from evomerge_optuna.merging.plan import MergePlan, mergekit_errors
from evomerge_optuna.models.digest import Digest
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.models.stream import Memory

_Item = TypeVar("_Item")
_END = object()


class MergeStream:
    """A merge on its way; see `Stream`.

    Args:
        plan: mergekit's plan of the merge.
        structure: see `Stream`.
        make: makes the tensors, one after the other.
        device: where they are made.
        into: the receiver's memory.
    """

    def __init__(
        self,
        plan: MergePlan,
        structure: str,
        make: Callable[[], Iterator[NamedTensor]],
        device: str,
        into: Memory,
    ) -> None:
        self.structure = structure
        self._plan = plan
        self._make = make
        self._device = device
        self._into = into
        self._digest = Digest(Lane(device) if has_memory_of_its_own(device) else None)

    def __iter__(self) -> Iterator[NamedTensor]:
        for name, tensor in apart(self._make(), self._device):
            if tensor is self._into.get(name):
                self._digest.add_held(name, tensor)
            else:
                self._digest.add(name, tensor)
            yield name, tensor

    def complete(self) -> None:
        """All tensors have passed. On an accelerator, threads may go on hashing them.

        Raises:
            NotFiniteError: a weight is NaN or infinite.
        """
        self._digest.complete()

    def wait(self) -> None:
        """Until no thread reads the tensors any more, which may then be changed."""
        self._digest.wait()

    def digest(self) -> str:
        return self._digest.hexdigest()

    def write_files_beside_weights(self, folder: Path) -> None:
        with mergekit_errors(folder):
            self._plan.write_files_beside_weights(folder)


def apart(items: Iterator[_Item], device: str) -> Iterator[_Item]:
    """The items, made with random numbers of their own.

    What the receiver draws between two items does not change them, nor do they change what it
    draws.

    Args:
        device: whose generator is used beside that of the CPU.
    """
    own: list[torch.Tensor] | None = None
    while True:
        outer = random_states(device)
        if own is not None:
            set_random_states(device, own)
        try:
            item = next(items, _END)
            own = random_states(device)
        finally:
            set_random_states(device, outer)
        if item is _END:
            return
        yield item  # type: ignore[misc]
