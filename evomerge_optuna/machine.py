"""What of this machine a process takes: all of it, or its share where several run at once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from evomerge_optuna import devices

_processes = 1


def take_share(number: int, processes: int) -> None:
    """Makes this process one of so many: threads and memory are divided, GPUs taken in turn."""
    global _processes
    _processes = processes
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    devices.take(number)


def is_alone() -> bool:
    """Is this process no share of several?"""
    return _processes == 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads within the block: sums over large tensors round by how they are divided."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_of(memory: int, device: str) -> int:
    """This process's share of so many bytes of a device.

    Args:
        device: as a spec has it; processes take accelerators in turn where it has no number.
    """
    taken = 1 if device == "cpu" or ":" in device else max(1, devices.count())
    return memory // math.ceil(_processes / taken)


@dataclass(frozen=True)
class Machine:
    """Bytes of memory in all and free, where a study's models run.

    Args:
        on_gpu: they run on an accelerator.
        host: bytes of the machine's own memory that are free, where the accelerator has memory
            beside it; else 0.
    """

    memory: int
    free: int
    on_gpu: bool
    host: int = 0


def this_machine(device: str) -> Machine:
    """The machine for a study on this device, as torch has its name."""
    memory, free = _main_memory()
    if not devices.has_memory_of_its_own(device):
        return Machine(memory, free, on_gpu=devices.is_accelerator(device))
    own_free, own = devices.memory_of(device)
    return Machine(own, own_free, on_gpu=True, host=free)


def _main_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes in all and free: of the machine, or of what a container is given of it."""
    found = psutil.virtual_memory()
    memory, free = int(found.total), int(found.available)
    for limit, used, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # no such file, or no limit: `max`
            most = int((cgroup / limit).read_text())
            words = (cgroup / limit).with_name("memory.stat").read_text().split()
            cached = int(words[words.index(inactive) + 1])  # of files, given up where it is wanted
            left = most - int((cgroup / used).read_text()) + cached
            return min(memory, most), min(free, max(0, left))
    return memory, free
