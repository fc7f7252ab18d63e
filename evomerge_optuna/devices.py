"""The devices that torch has here: the CPU, and what it calls an accelerator, as a GPU.

Whatever is asked of an accelerator beyond its tensors is asked here, and of no kind of it by name.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Accelerator:
    """An accelerator of this machine.

    Args:
        name: as a spec may have it, `cuda:1`.
        product: what its maker calls it.
    """

    name: str
    product: str


def accelerators() -> list[Accelerator]:
    """All that torch finds; they are of one kind."""
    import torch

    if not torch.accelerator.is_available():
        return []
    kind = _kind()
    product = getattr(torch.get_device_module(kind), "get_device_name", lambda _: kind)
    return [
        Accelerator(f"{kind}:{index}", product(index))
        for index in range(torch.accelerator.device_count())
    ]


def torch_device(name: str) -> str:
    """torch's name of the device that a spec's `evaluation.device` means: `cpu` or `cuda:1`.

    Where no number is given it is this process's current one.

    Raises:
        SpecError: there is no such device.
    """
    import torch

    kind, _, number = name.partition(":")
    if kind == "cpu" and not number:
        return "cpu"
    if not torch.accelerator.is_available():
        if name == "auto":
            return "cpu"
        raise SpecError(
            f"evaluation.device: there is no {name}, for torch {torch.__version__} finds no "
            "accelerator here; write cpu or auto"
        )
    index = int(number) if number else torch.accelerator.current_device_index()
    if name != "auto" and (kind != _kind() or index >= torch.accelerator.device_count()):
        found = ", ".join(f"{one.name} ({one.product})" for one in accelerators())
        raise SpecError(
            f"evaluation.device: there is no {name}, for torch finds {found}; write one of these, "
            "cpu or auto"
        )
    return f"{_kind()}:{index}"


def is_accelerator(device: str) -> bool:
    """Is it another device than the CPU?"""
    return device != "cpu"


def has_memory_of_its_own(device: str) -> bool:
    """Has it memory beside that of the machine? Apple's GPUs have not."""
    return is_accelerator(device) and not device.startswith("mps")


def memory_of(device: str) -> tuple[int, int]:
    """Bytes of an accelerator's own memory: free, and in all."""
    import torch

    free, total = torch.accelerator.get_memory_info(device)
    return int(free), int(total)


def count() -> int:
    """How many accelerators there are."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def take(number: int) -> None:
    """Makes one accelerator this process's current one, counted round."""
    import torch

    if devices := count():
        torch.accelerator.set_device_index(number % devices)


def give_back_unused() -> None:
    """Returns the memory that torch keeps for tensors to come, for others to take."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def random_states(device: str) -> "list[torch.Tensor]":
    """The states of torch's own generators: the CPU's, and the accelerator's if it is one."""
    import torch

    states = [torch.get_rng_state()]
    if is_accelerator(device):
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def set_random_states(device: str, states: "list[torch.Tensor]") -> None:
    """Sets what `random_states` gave."""
    import torch

    torch.set_rng_state(states[0])
    if is_accelerator(device):
        torch.get_device_module(device).set_rng_state(states[1], device)


def _kind() -> str:
    import torch

    found = torch.accelerator.current_accelerator()
    assert found is not None  # one is available
    return found.type
