"""What of this machine a process takes: all of it, or its share where several run at once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_processes = 1


def take_share(number: int, processes: int) -> None:
    """Makes this process one of so many: threads and memory are divided, GPUs taken in turn."""
    global _processes
    _processes = processes
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


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
    """This process's share of so many bytes of the machine, or of a GPU."""
    devices = torch.cuda.device_count() if device == "cuda" else 1
    return memory // math.ceil(_processes / devices)


@dataclass(frozen=True)
class Machine:
    """Bytes of memory in all and free, of the GPU where one is used."""

    memory: int
    free: int
    on_gpu: bool


def this_machine(device: str) -> Machine:
    """The machine for a study on this device, cpu or cuda."""
    if device == "cuda":
        free, memory = torch.cuda.mem_get_info()
        return Machine(memory, free, on_gpu=True)
    memory, free = _main_memory()
    return Machine(memory, free, on_gpu=False)


def free_memory(device: str) -> int:
    """Bytes that are free now."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return _main_memory()[1]


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
