"""What of this machine a process takes: all of it, or its share where several run at once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    return Machine(psutil.virtual_memory().total, free_memory(device), on_gpu=False)


def free_memory(device: str) -> int:
    """Bytes that are free now."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
