"""The devices that torch has here: the CPU, and what it calls an accelerator, as a GPU.

Whatever is asked of an accelerator beyond its tensors is asked here, and of no kind of it by name.
"""

from collections.abc import Callable, Sequence
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


def pinned(tensor: "torch.Tensor", device: str) -> "torch.Tensor":
    """The tensor in memory of the machine from which it is copied to a device at full speed."""
    return tensor.pin_memory() if has_memory_of_its_own(device) else tensor


def pinned_size(size: int) -> int:
    """Bytes that torch takes for so many in pinned memory: the next power of two."""
    return 1 << (size - 1).bit_length() if size else 0


class Lane:
    """A way onto a device beside what it computes, which goes on meanwhile.

    Args:
        device: as torch has its name.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._device = device
        self._stream = torch.Stream(device) if has_memory_of_its_own(device) else None

    def send(self, tensors: "Sequence[torch.Tensor]") -> "Sent":
        """Begins to copy tensors of the machine; any thread may call it."""
        if self._stream is None:
            return Sent(self._device, [tensor.to(self._device) for tensor in tensors], None)
        with self._stream:
            copies = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
            return Sent(self._device, copies, self._stream.record_event())

    def fetch(self, tensor: "torch.Tensor") -> "Callable[[], torch.Tensor]":
        """What copies a tensor to the machine, as it is after the calling thread's work so far.

        Any thread may call it.
        """
        import torch

        stream = self._stream
        if stream is None or tensor.is_cpu:
            return tensor.cpu
        computed = torch.accelerator.current_stream(self._device).record_event()

        def copy() -> torch.Tensor:
            with stream:
                stream.wait_event(computed)
                tensor.record_stream(stream)
                return tensor.cpu()  # waits for this stream alone

        return copy


@dataclass(frozen=True)
class Sent:
    """Tensors on their way to a device, and the event of their arrival; None: they are there."""

    device: str
    tensors: "list[torch.Tensor]"
    arrival: "torch.Event | None"

    def received(self) -> "list[torch.Tensor]":
        """The tensors, for what the calling thread has the device do from now on."""
        import torch

        if self.arrival is not None:
            work = torch.accelerator.current_stream(self.device)
            work.wait_event(self.arrival)
            for tensor in self.tensors:  # whose memory is not to be used anew before
                tensor.record_stream(work)
        return self.tensors


def _kind() -> str:
    import torch

    found = torch.accelerator.current_accelerator()
    assert found is not None  # one is available
    return found.type
